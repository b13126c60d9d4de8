"""Small random models of Flux.2 (klein with a Qwen 3, dev with a Mistral that could read images) and Flux Kontext, laid
out on disk as published ones."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from .tiny import loud, write_index, write_json
from .tiny_families import FLOW, WORD_LAYERS, write_flux
from .tiny_language_models import CHAT, write_qwen_tokenizer

MISTRAL_CHAT = (
    "{% macro text(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{{ part.text if part.type == 'text' else '[IMG]' }}{% endfor %}{% endif %}{% endmacro %}"
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}[SYSTEM_PROMPT]"
    "{{ text(message.content) }}[/SYSTEM_PROMPT]{% else %}[INST]{{ text(message.content) }}[/INST]{% endif %}"
    "{% endfor %}"
)
"""What Mistral Small 3's comes to for a system's and a user's words."""
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
DYNAMIC |= {"base_image_seq_len": 256, "max_image_seq_len": 4096, "time_shift_type": "exponential"}
HIDDEN = 24
"""Width of a text encoder's states."""


def write_klein(folder: Path, *, distilled: bool = False, layers: int = 28) -> Path:
    """Flux.2 klein.

    Args:
        distilled: guided by nothing, as `is_distilled` says.
        layers: of the text encoder.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokens = write_qwen_tokenizer(folder / "tokenizer", CHAT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        _write_denoiser(folder, guidance_embeds=False, width=HIDDEN * min(3, layers))
        encoder = Qwen3ForCausalLM(Qwen3Config(vocab_size=tokens, **_sizes(layers), tie_word_embeddings=True))
        _write_encoder(encoder, folder)
    _write_index(folder, "Flux2KleinPipeline", "Qwen3ForCausalLM", "Qwen2TokenizerFast", is_distilled=distilled)
    return folder


def write_dev(folder: Path, *, layers: int = 30) -> Path:
    """Flux.2 dev; its processor's image part is left out, which no text asks for.

    Args:
        layers: of the text encoder.
    """
    import torch
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig

    tokens = write_mistral_tokenizer(folder / "tokenizer")
    seeing = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        _write_denoiser(folder, guidance_embeds=True, width=HIDDEN * min(3, layers))
        config = Mistral3Config(
            text_config=MistralConfig(vocab_size=tokens, **_sizes(layers), tie_word_embeddings=False),
            vision_config=PixtralVisionConfig(**seeing, image_size=28, patch_size=14, head_dim=8),
            image_token_index=tokens - 1,
        )
        _write_encoder(Mistral3ForConditionalGeneration(config), folder)
    _write_index(folder, "Flux2Pipeline", "Mistral3ForConditionalGeneration", "PixtralProcessor")
    return folder


def _sizes(layers: int) -> dict[str, Any]:
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    return {**sizes, "num_key_value_heads": 1, "head_dim": 12, "max_position_embeddings": 1024}


def _write_encoder(encoder: Any, folder: Path) -> None:
    import torch

    with torch.no_grad():  # as large as a trained model's, so that words matter
        encoder.get_input_embeddings().weight.normal_(0.0, 1.0)
    encoder.save_pretrained(folder / "text_encoder")


def _write_denoiser(folder: Path, *, guidance_embeds: bool, width: int) -> None:
    """The transformer, and the autoencoder with statistics of its latents."""
    from diffusers import Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        in_channels=32,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=width,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    loud(transformer, transformer.proj_out, *WORD_LAYERS)
    transformer.save_pretrained(folder / "transformer")
    write_autoencoder(folder / "vae")


def write_autoencoder(folder: Path) -> None:
    """Flux.2's, with statistics of its latents."""
    import torch
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        latent_channels=8,
    )
    with torch.no_grad():  # latents of about unit variance once scaled, and a narrow posterior
        vae.quant_conv.weight[:8] *= 6.0
        vae.quant_conv.weight[8:] *= 0.2
        vae.quant_conv.bias[8:] = -2.0
        vae.bn.running_mean.normal_(0.0, 0.3)
        vae.bn.running_var.uniform_(0.5, 2.0)
        vae.decoder.conv_out.weight *= 2.0
    vae.save_pretrained(folder)


def write_mistral_tokenizer(folder: Path) -> int:
    """A tokenizer of bytes, padded on the left; returns how many tokens it has."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    marks = ["<pad>", "<s>", "</s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "[IMG]"]
    made.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    begin = ("<s>", made.token_to_id("<s>"))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": MISTRAL_CHAT, "padding_side": "left"}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "model_max_length": 4096}
    write_json(folder / "tokenizer_config.json", config | {"processor_class": "PixtralProcessor"})
    return len(letters) + len(marks)


def _write_index(folder: Path, pipeline: str, encoder: str, tokenizer: str, **more: Any) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW | DYNAMIC | {"shift": 3.0})
    parts = {"scheduler": str(FLOW["_class_name"]), "text_encoder": encoder, "tokenizer": tokenizer}
    parts |= {"transformer": "Flux2Transformer2DModel", "vae": "AutoencoderKLFlux2"}
    write_index(folder, pipeline, parts, **more)


def write_kontext(folder: Path) -> Path:
    """Flux Kontext: a Flux under another name."""
    write_flux(folder)
    index = json.loads((folder / "model_index.json").read_text())
    write_json(folder / "model_index.json", index | {"_class_name": "FluxKontextPipeline"})
    return folder


WRITERS = {
    "kontext": write_kontext,
    "klein": write_klein,
    "dev": write_dev,
    "klein distilled": partial(write_klein, distilled=True),
}
"""By the names that tests use."""
