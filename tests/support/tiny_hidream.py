"""A small random HiDream I1, laid out on disk as the published one with Llama 3.1 beside its other text encoders; by
name, the writers of SANA and Chroma besides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .tiny import WORDS, write_clip, write_index, write_json, write_tokenizer, write_vae
from .tiny_chroma import write_chroma
from .tiny_families import PLAIN_VAE, write_t5
from .tiny_sana import SOLVED, write_sana

LONG = 248
"""Tokens that its CLIPs see."""
MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")


def write_hidream(folder: Path, *, llama: Path | None = None, scheduler: dict[str, Any] | None = None) -> Path:
    """HiDream I1: four text encoders, double and single blocks, of four experts two at a time.

    Args:
        llama: where the fourth text encoder and its tokenizer go, together; in the model's folder by default.
        scheduler: its configuration in the place of the published one.
    """
    import torch
    from diffusers import HiDreamImageTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(29)
        transformer = HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            caption_channels=[48, 32],
            text_emb_dim=24 + 40,
            num_routed_experts=4,
            num_activated_experts=2,
            axes_dims_rope=(8, 4, 4),
            max_resolution=(16, 16),
            llama_layers=(0, 1),
        )
        transformer.save_pretrained(folder / "transformer")
        write_vae(folder / "vae", 16, scaling_factor=0.3611, shift_factor=0.1159, **PLAIN_VAE)
        for ending, sizes in {"": {"projection_dim": 24}, "_2": {"projection_dim": 40, "num_hidden_layers": 3}}.items():
            vocabulary = write_tokenizer(folder / f"tokenizer{ending}")
            settings = json.loads((folder / f"tokenizer{ending}" / "tokenizer_config.json").read_text())
            write_json(folder / f"tokenizer{ending}" / "tokenizer_config.json", settings | {"model_max_length": LONG})
            sizes["max_position_embeddings"] = LONG
            write_clip(folder / f"text_encoder{ending}", vocabulary, bool(ending), projects=True, **sizes)
        write_t5(folder / "text_encoder_3", folder / "tokenizer_3", 48)
        network, tokenizer = (llama, llama) if llama else (folder / "text_encoder_4", folder / "tokenizer_4")
        write_llama(network, write_llama_tokenizer(tokenizer))
    own = {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh2", "disable_corrector": []}
    dropped = ("algorithm_type", "variance_type")
    scheduler = scheduler or {k: v for k, v in SOLVED.items() if k not in dropped} | own
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    parts = {"scheduler": scheduler["_class_name"], "vae": "AutoencoderKL"}
    parts["transformer"] = "HiDreamImageTransformer2DModel"
    classes = ["CLIPTextModelWithProjection", "CLIPTextModelWithProjection", "T5EncoderModel", "LlamaForCausalLM"]
    tokenizers = ["CLIPTokenizer", "CLIPTokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast"]
    for number, (cls, words) in enumerate(zip(classes, tokenizers, strict=True)):
        ending = f"_{number + 1}" if number else ""
        there = number < 3 or llama is None
        parts |= {"text_encoder" + ending: cls if there else "", "tokenizer" + ending: words if there else ""}
    write_index(folder, "HiDreamImagePipeline", parts)
    return folder


def write_llama(folder: Path, tokens: int) -> None:
    """Llama with its head, 32 wide."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    encoder = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokens,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=8192,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    with torch.no_grad():
        encoder.get_input_embeddings().weight.normal_(0.0, 0.5)
    encoder.save_pretrained(folder)


def write_llama_tokenizer(folder: Path) -> int:
    """Llama 3's: byte-pair encoding of bytes, a mark at the beginning, nothing to fill up with; returns the number of
    tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = ["\u0120", *word]
        while len(parts) > 1:  # every word is built from its left end
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
    pieces = dict.fromkeys([*MARKS, *letters, *(a + b for a, b in merges)])
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(single=f"{MARKS[0]} $A", special_tokens=[(MARKS[0], 0)])
    marks = {"bos_token": MARKS[0], "eos_token": MARKS[2]}
    PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=131072, **marks).save_pretrained(folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072, **marks}
    write_json(folder / "tokenizer_config.json", settings)
    return len(pieces)


WRITERS = {"sana": write_sana, "chroma": write_chroma, "hidream": write_hidream}
"""By the names that tests use."""
