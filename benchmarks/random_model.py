"""A Stable Diffusion of random weights in a given geometry: `python -m benchmarks.random_model sd15 FOLDER`.

Its files are of float32, or of another type, such as bfloat16, that is named behind the folder.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tiny import write_tokenizer


@dataclass(frozen=True)
class Geometry:
    """Sizes of the three networks."""

    unet_widths: tuple[int, ...]
    unet_layers: int
    words_width: int
    """Width of the text encoder, and of the denoiser's cross-attention."""
    words_layers: int
    vae_widths: tuple[int, ...]
    vae_layers: int
    resolution: int
    vocabulary: int = 49408


GEOMETRIES = {
    "small": Geometry((32, 64), 1, 32, 2, (16, 16, 32, 32), 1, 64, 1000),
    "23m": Geometry((64, 128, 256, 256), 1, 256, 4, (32, 32, 64, 64), 1, 256),
    "sd15": Geometry((320, 640, 1280, 1280), 2, 768, 12, (128, 256, 512, 512), 2, 512),
}


def write_random_model(folder: Path, g: Geometry, dtype: str = "float32") -> Path:
    """Write a model of random weights of a PyTorch type in diffusers' layout; returns the folder."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    plain = len(g.unet_widths) - 1
    UNet2DConditionModel(
        sample_size=g.resolution // 8,
        block_out_channels=g.unet_widths,
        layers_per_block=g.unet_layers,
        down_block_types=("CrossAttnDownBlock2D",) * plain + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * plain,
        cross_attention_dim=g.words_width,
        attention_head_dim=8,
    ).to(getattr(torch, dtype)).save_pretrained(folder / "unet")
    blocks = len(g.vae_widths)
    AutoencoderKL(
        sample_size=g.resolution,
        block_out_channels=g.vae_widths,
        layers_per_block=g.vae_layers,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=min(32, g.vae_widths[0]),
        latent_channels=4,
    ).to(getattr(torch, dtype)).save_pretrained(folder / "vae")
    write_tokenizer(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=g.vocabulary,
            hidden_size=g.words_width,
            intermediate_size=4 * g.words_width,
            num_hidden_layers=g.words_layers,
            num_attention_heads=max(2, g.words_width // 64),
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        )
    ).to(getattr(torch, dtype)).save_pretrained(folder / "text_encoder")
    file = folder / "text_encoder" / "model.safetensors"  # under its published names, as both trainers read it
    tensors = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_index(), indent=1), encoding="utf-8")
    return folder


def _index() -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


if __name__ == "__main__":
    print(write_random_model(Path(sys.argv[2]), GEOMETRIES[sys.argv[1]], *sys.argv[3:]))
