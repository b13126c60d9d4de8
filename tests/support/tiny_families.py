"""Small random models of the other families' true architecture, laid out on disk as published ones."""

from __future__ import annotations

import string
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .tiny import WORDS, loud, write_clip, write_index, write_json, write_scheduler, write_tokenizer, write_vae

EDM = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "_diffusers_version": "0.42.1",
    "algorithm_type": "dpmsolver++",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
}


FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.42.1",
    "num_train_timesteps": 1000,
    "shift": 1.0,
}
IF_NOISE = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.42.1",
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.95,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.5,
    "thresholding": True,
    "trained_betas": None,
    "variance_type": "learned_range",
}
"""DeepFloyd IF's own."""
PLAIN_VAE = {"use_quant_conv": False, "use_post_quant_conv": False}
WORD_LAYERS = ("attn2.to_v", "attn2.to_out.0.weight", "add_v_proj", "context_embedder")
"""Parts of the names of what reads words."""


def write_sdxl(folder: Path, *, edm: bool = False, zeroes_empty: bool = True) -> Path:
    """Stable Diffusion XL: two text encoders of different widths, the second with projection and padded with "!"; a
    UNet with size and crop embeddings and transformers of unequal depth.

    Args:
        edm: preconditioned as Playground v2.5 is, with means and deviations of its latents.
        zeroes_empty: `force_zeros_for_empty_prompt`.
    """
    import torch
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2),
            norm_num_groups=8,
            cross_attention_dim=32 + 48,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
        )
        loud(unet, unet.conv_out, *WORD_LAYERS)
        unet.save_pretrained(folder / "unet")
        scaling = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.8, 1.2, 1.0]} if edm else {}
        write_vae(folder / "vae", scaling_factor=0.13025, **scaling)
        write_clip(folder / "text_encoder", write_tokenizer(folder / "tokenizer"), False, num_hidden_layers=3)
        big = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "projection_dim": 24}
        write_clip(folder / "text_encoder_2", write_tokenizer(folder / "tokenizer_2", True), True, projects=True, **big)
    if edm:
        write_json(folder / "scheduler" / "scheduler_config.json", EDM)
    scheduler = str(EDM["_class_name"]) if edm else write_scheduler(folder / "scheduler")
    _write_index(
        folder,
        "StableDiffusionXLPipeline",
        scheduler,
        {"unet": "UNet2DConditionModel"},
        ["CLIPTextModel", "CLIPTextModelWithProjection"],
        force_zeros_for_empty_prompt=zeroes_empty,
        image_encoder=[None, None],
        feature_extractor=[None, None],
    )
    return folder


def write_sd3(folder: Path, *, t5: bool = True, shift: float = 3.0, large: bool = False, width: int = 96) -> Path:
    """Stable Diffusion 3: three text encoders, a joint transformer, flow matching.

    Args:
        t5: with the third text encoder; otherwise null in its place.
        shift: of the schedule.
        large: SD3.5's differences: normalised queries and keys, and second attentions (medium's).
        width: of the words as the transformer takes them; CLIP's are 80 wide.
    """
    import torch
    from diffusers import SD3Transformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        newer = {"qk_norm": "rms_norm", "dual_attention_layers": (0,)} if large else {}
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=width,
            caption_projection_dim=32,
            pooled_projection_dim=24 + 40,
            pos_embed_max_size=24,
            **newer,
        )
        loud(transformer, transformer.proj_out, *WORD_LAYERS)
        transformer.save_pretrained(folder / "transformer")
        write_vae(folder / "vae", 16, scaling_factor=1.5305, shift_factor=0.0609, **PLAIN_VAE)
        vocabulary = write_tokenizer(folder / "tokenizer")
        write_clip(folder / "text_encoder", vocabulary, False, projects=True, projection_dim=24)
        big = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "projection_dim": 40}
        write_clip(folder / "text_encoder_2", write_tokenizer(folder / "tokenizer_2", True), True, projects=True, **big)
        if t5:
            write_t5(folder / "text_encoder_3", folder / "tokenizer_3", width)
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW | {"shift": shift})
    _write_index(
        folder,
        "StableDiffusion3Pipeline",
        str(FLOW["_class_name"]),
        {"transformer": "SD3Transformer2DModel"},
        ["CLIPTextModelWithProjection", "CLIPTextModelWithProjection", "T5EncoderModel" if t5 else ""],
        image_encoder=[None, None],
        feature_extractor=[None, None],
    )
    return folder


def write_flux(folder: Path, *, guidance_embeds: bool = True) -> Path:
    """Flux.1: a pooled CLIP and a T5, double and single blocks on packed latents, a shift by resolution.

    Args:
        guidance_embeds: as dev has them; schnell does without.
    """
    import torch
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            pooled_projection_dim=32,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        )
        loud(transformer, transformer.proj_out, *WORD_LAYERS)
        transformer.save_pretrained(folder / "transformer")
        write_vae(folder / "vae", 16, scaling_factor=0.3611, shift_factor=0.1159, **PLAIN_VAE)
        write_clip(folder / "text_encoder", write_tokenizer(folder / "tokenizer"), False)
        write_t5(folder / "text_encoder_2", folder / "tokenizer_2", 48)
    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    sizes = {"base_image_seq_len": 4, "max_image_seq_len": 64}
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW | dynamic | sizes)
    _write_index(
        folder,
        "FluxPipeline",
        str(FLOW["_class_name"]),
        {"transformer": "FluxTransformer2DModel"},
        ["CLIPTextModel", "T5EncoderModel"],
        image_encoder=[None, None],
        feature_extractor=[None, None],
    )
    return folder


def write_if(folder: Path, *, upscales: bool = False) -> Path:
    """DeepFloyd IF: pixels, T5, a UNet that answers with a variance besides, noise on the cosine schedule.

    Args:
        upscales: stage 2, whose UNet sees a low-resolution image beside the noisy one and is told how noisy that is.
    """
    import torch
    from diffusers import UNet2DConditionModel

    second: dict[str, Any] = {"in_channels": 6, "class_embed_type": "timestep", "mid_block_scale_factor": 1.414}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            layers_per_block=1,
            norm_num_groups=8,
            out_channels=6,
            cross_attention_dim=32,
            encoder_hid_dim=48,
            attention_head_dim=8,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            cross_attention_norm="group_norm",
            resnet_time_scale_shift="scale_shift",
            act_fn="gelu",
            **(second if upscales else {"in_channels": 3}),
        )
        loud(unet, unet.conv_out, *WORD_LAYERS)
        unet.save_pretrained(folder / "unet")
        write_t5(folder / "text_encoder", folder / "tokenizer", 48)
    write_json(folder / "scheduler" / "scheduler_config.json", IF_NOISE)
    more: dict[str, Any] = {n: [None, None] for n in ("safety_checker", "watermarker", "feature_extractor")}
    if upscales:
        write_json(folder / "image_noising_scheduler" / "scheduler_config.json", IF_NOISE)
        more |= {"image_noising_scheduler": ["diffusers", "DDPMScheduler"]}
    pipeline = "IFSuperResolutionPipeline" if upscales else "IFPipeline"
    parts = {"unet": "UNet2DConditionModel"}
    _write_index(folder, pipeline, "DDPMScheduler", parts, ["T5EncoderModel"], vae=False, **more)
    return folder


def write_t5(network: Path, tokenizer: Path, width: int) -> None:
    """A T5 encoder, its published file with one of its two names for the same table; and a unigram tokenizer."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    pieces = ["<pad>", "</s>", "<unk>", *(f"\u2581{word}" for word in WORDS), "\u2581", *string.printable[:95].strip()]
    unigram = models.Unigram([(piece, -1.0 - 0.1 * i) for i, piece in enumerate(pieces)], 2)
    made = Tokenizer(unigram)
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **marks).save_pretrained(tokenizer)
    write_json(
        tokenizer / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, **marks}
    )
    _write_spiece(tokenizer / "spiece.model", pieces)
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(pieces),
            d_model=width,
            d_ff=64,
            d_kv=16,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
        )
    )
    with torch.no_grad():
        encoder.get_input_embeddings().weight.normal_(0.0, 1.0)
    encoder.save_pretrained(network)
    file = network / "model.safetensors"
    tensors = {name.replace("encoder.embed_tokens.", "shared."): t for name, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def _write_spiece(file: Path, pieces: list[str]) -> None:
    """The same unigram pieces as a SentencePiece model, which older readers want: its protocol buffer by hand."""

    def record(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    def number(field: int, value: int) -> bytes:
        return _varint(field << 3) + _varint(value)

    content = b""
    for i, piece in enumerate(pieces):
        kind = {"<unk>": 2, "<pad>": 3, "</s>": 3}.get(piece, 1)
        text, score = record(1, piece.encode()), b"\x15" + struct.pack("<f", -1.0 - 0.1 * i)
        content += record(1, text + score + number(3, kind))
    trainer = number(3, 1) + number(40, 2) + number(41, 2**64 - 1) + number(42, 1) + number(43, 0)
    file.write_bytes(content + record(2, trainer) + record(3, record(1, b"identity")))


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


WRITERS: dict[str, Callable[..., Path]] = {
    "sdxl": write_sdxl,
    "sd3": write_sd3,
    "flux": write_flux,
    "if1": write_if,
    "if2": partial(write_if, upscales=True),
}
"""By the names that tests use."""


def _write_index(
    folder: Path,
    pipeline: str,
    scheduler: str,
    denoiser: dict[str, str],
    encoders: list[str],
    *,
    vae: bool = True,
    **more: Any,
) -> None:
    parts = denoiser | {"scheduler": scheduler} | ({"vae": "AutoencoderKL"} if vae else {})
    for number, cls in enumerate(encoders):
        ending = f"_{number + 1}" if number else ""
        tokenizer = "T5TokenizerFast" if "T5" in cls else "CLIPTokenizer"
        parts |= {"text_encoder" + ending: cls, "tokenizer" + ending: tokenizer if cls else ""}
    write_index(folder, pipeline, parts, **more)
