"""Small random models of the families whose words are a language model's: Lumina 2, Qwen-Image, Z-Image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .tiny import WORDS, loud, write_index, write_json, write_vae
from .tiny_families import FLOW, PLAIN_VAE

SENTENCES = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based "
    "on textual prompts or user prompts. <Prompt Start>",
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
    "the objects and background:\nuser\nassistant\n",
    "photo, a photo of sks dog in snow, A DOG on grass",
    " ".join(WORDS),
)
"""Every word of which is one token, as it is to the published tokenizers."""
CHAT = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
"""What Qwen 3's published template comes to where there are no tools."""
EULER = str(FLOW["_class_name"])
SHIFTED = FLOW | {"base_image_seq_len": 4, "base_shift": 0.5, "max_image_seq_len": 64, "max_shift": 0.9}
SHIFTED |= {"shift_terminal": 0.02, "time_shift_type": "exponential", "use_dynamic_shifting": True}
QWEN = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
QWEN |= {"num_key_value_heads": 1, "max_position_embeddings": 4096}


def write_lumina_2(folder: Path) -> Path:
    """Lumina Image 2.0: Gemma 2, a transformer with refiners of words and of images."""
    import torch
    from diffusers import Lumina2Transformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformer = Lumina2Transformer2DModel(
            sample_size=8,
            hidden_size=48,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(8, 8, 8),
            axes_lens=(300, 32, 32),
            cap_feat_dim=32,
        )
        loud(transformer, transformer.norm_out.linear_2, "time_caption_embed.caption_embedder.1")
        transformer.save_pretrained(folder / "transformer")
        write_vae(folder / "vae", 16, scaling_factor=0.3611, shift_factor=0.1159, **PLAIN_VAE)
        words = {**QWEN, "vocab_size": write_gemma_tokenizer(folder / "tokenizer"), "head_dim": 16}
        config = Gemma2Config(**words, query_pre_attn_scalar=16, pad_token_id=0, eos_token_id=1, bos_token_id=2)
        Gemma2Model(config).save_pretrained(folder / "text_encoder")
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW | {"shift": 6.0})
    classes = {"transformer": "Lumina2Transformer2DModel", "vae": "AutoencoderKL", "scheduler": EULER}
    write_index(folder, "Lumina2Pipeline", classes | {"text_encoder": "Gemma2Model", "tokenizer": "GemmaTokenizerFast"})
    return folder


def write_qwen_image(folder: Path) -> Path:
    """Qwen-Image: Qwen 2.5 VL in its published names, an autoencoder of films, joint blocks on packed latents."""
    import torch
    from diffusers import QwenImageTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
        )
        loud(transformer, transformer.proj_out, "txt_in", "add_v_proj")
        transformer.save_pretrained(folder / "transformer")
        write_qwen_vae(folder / "vae")
        write_qwen_2_5_vl(folder / "text_encoder", write_qwen_tokenizer(folder / "tokenizer"))
    write_json(folder / "scheduler" / "scheduler_config.json", SHIFTED)
    classes = {"transformer": "QwenImageTransformer2DModel", "vae": "AutoencoderKLQwenImage", "scheduler": EULER}
    write_index(
        folder,
        "QwenImagePipeline",
        classes | {"text_encoder": "Qwen2_5_VLForConditionalGeneration", "tokenizer": "Qwen2Tokenizer"},
    )
    return folder


def write_z_image(folder: Path) -> Path:
    """Z-Image: Qwen 3 asked as in a chat, one row of words and image."""
    import torch
    from diffusers import ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        transformer = ZImageTransformer2DModel(
            dim=48,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[8, 8, 8],
            axes_lens=[1024, 64, 64],
        )
        torch.nn.init.normal_(transformer.x_pad_token, std=0.02)
        torch.nn.init.normal_(transformer.cap_pad_token, std=0.02)
        loud(transformer, transformer.all_final_layer["2-1"].linear, "cap_embedder.1")
        transformer.save_pretrained(folder / "transformer")
        write_vae(folder / "vae", 16, scaling_factor=0.3611, shift_factor=0.1159, **PLAIN_VAE)
        size = write_qwen_tokenizer(folder / "tokenizer", CHAT)
        Qwen3Model(Qwen3Config(**QWEN, head_dim=16, vocab_size=size)).save_pretrained(folder / "text_encoder")
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW | {"shift": 6.0, "use_dynamic_shifting": False})
    classes = {"transformer": "ZImageTransformer2DModel", "vae": "AutoencoderKL", "scheduler": EULER}
    write_index(folder, "ZImagePipeline", classes | {"text_encoder": "Qwen3Model", "tokenizer": "Qwen2Tokenizer"})
    return folder


def write_qwen_vae(folder: Path) -> None:
    """Qwen-Image's autoencoder of films."""
    import torch
    from diffusers import AutoencoderKLQwenImage

    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.2, 1.0],
    )
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= 6.0
        vae.quant_conv.bias[4:] = -2.0
        vae.decoder.conv_out.weight *= 2.0
    vae.save_pretrained(folder)


def write_qwen_2_5_vl(folder: Path, vocabulary: int) -> None:
    """As published with Qwen-Image, whose names of weights are older than those of transformers since 4.52."""
    from safetensors.torch import load_file, save_file
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    seen = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 1, "out_hidden_size": 32}
    turned = {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3]}
    config = Qwen2_5_VLConfig(
        text_config={**QWEN, "vocab_size": vocabulary, "rope_scaling": turned},
        vision_config=seen,
        vocab_size=vocabulary,
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    file = folder / "model.safetensors"
    older = {"model.language_model.": "model.", "model.visual.": "visual."}
    tensors = {}
    for name, tensor in load_file(file).items():
        new = next((old + name.removeprefix(now) for now, old in older.items() if name.startswith(now)), name)
        tensors[new] = tensor.contiguous()
    save_file(tensors, file, metadata={"format": "pt"})


def write_qwen_tokenizer(folder: Path, chat_template: str | None = None) -> int:
    """Qwen's: pairs of bytes, the two files that were published; returns how many tokens there are."""
    import json

    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=1, initial_alphabet=letters, show_progress=False)
    made.train_from_iterator([s for s in SENTENCES for _ in range(2)], trainer)
    learnt = json.loads(made.to_str())["model"]
    size = len(learnt["vocab"])
    marks = [("<|endoftext|>", size), ("<|im_start|>", size + 1), ("<|im_end|>", size + 2)]
    added = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(folder / "vocab.json", learnt["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in learnt["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    said: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(number): {"content": mark, **added} for mark, number in marks},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 131072,
    }
    write_json(folder / "tokenizer_config.json", said | ({"chat_template": chat_template} if chat_template else {}))
    return size + len(marks)


def write_gemma_tokenizer(folder: Path, *sentences: str) -> int:
    """Gemma's: pairs of letters with a blank that is one, bytes for what it does not know; one file.

    Args:
        sentences: further ones whose words are tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    blank, merges = "\u2581", list[tuple[str, str]]()
    words = sorted({word for sentence in (*SENTENCES, *sentences) for word in sentence.replace("\n", " ").split()})
    pieces += sorted({blank, *(letter for word in words for letter in word)})
    for word in words:
        for end in range(len(word)):
            before = blank + word[:end]
            if before + word[end] not in pieces:
                merges.append((before, word[end]))
                pieces.append(before + word[end])
    numbers = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", blank)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace(blank, " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    marks = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **marks).save_pretrained(folder)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "model_max_length": 10**30, **marks},
    )
    return len(pieces)


WRITERS: dict[str, Callable[..., Path]] = {
    "lumina2": write_lumina_2,
    "qwen-image": write_qwen_image,
    "z-image": write_z_image,
}
"""By the names that tests use."""
