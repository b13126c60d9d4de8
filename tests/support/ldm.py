"""Small Stable Diffusions for MindONE's checkpoints: arrays that tell their geometry, and a model that makes images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dreamcore.formats.clip_vocabulary import END, SIZE, write_clip_tokenizer
from dreamcore.formats.ldm import OPEN_CLIP, UNET, VAE, UNetGeometry, VAEGeometry, text_names, unet_names, vae_names
from dreamcore.formats.mindone import mindone_name
from dreamcore.formats.weights import Arrays

from .tiny import write_clip, write_json, write_scheduler

GEOMETRY = UNetGeometry((32, 64), 1, (True, False))
LATENTS = VAEGeometry((32, 64), 1)
LAYERS, WIDTH, HEADS = 2, 32, 2
CONFIG = """
model:
  base_learning_rate: 1.0e-05
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    conditioning_key: crossattn
    scale_factor: 0.18215
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        in_channels: 4
        model_channels: 32
        attention_resolutions: [ 1 ]
        num_res_blocks: 1
        channel_mult: [ 1, 2 ]
        num_heads: 4
        use_spatial_transformer: True
        context_dim: 32
        legacy: False
    first_stage_config:
      params:
        ddconfig:
          z_channels: 4
          ch: 32
          ch_mult:
          - 1
          - 2
          num_res_blocks: 1
          attn_resolutions: []
    cond_stage_config:
      params:
        heads: 2
        epsilon: 1e-5
        use_quick_gelu: True
"""
"""As MindONE's v1-train.yaml."""
_LINEAR = "num_head_channels: 16\n        use_linear_in_transformer: True"
CONFIG_2 = CONFIG.replace("num_heads: 4", _LINEAR).replace("gelu: True", "gelu: False")
"""As v2-inference.yaml."""
CONFIG_2_V = CONFIG_2.replace("  params:\n    linear", '  prediction_type: "v"\n  params:\n    linear')
"""As v2-vpred-inference.yaml."""


def small_arrays(second: bool = False) -> Arrays:
    """By MindONE's names, numbered; those arrays whose shapes say what the model is have them, the others are small."""
    tables = {UNET: unet_names(GEOMETRY), VAE: vae_names(LATENTS), OPEN_CLIP: text_names(LAYERS, open_clip=True)}
    names = [part + name for part, table in tables.items() for name in table]
    convolutions = (".q.weight", ".k.weight", ".v.weight", "attn_1.proj_out.weight")
    shapes = {name: (3, 2, 1, 1) if name.endswith(convolutions) else (3, WIDTH) for name in names}
    for block, channels in ((1, 32), (3, 64)):
        shapes[f"{UNET}input_blocks.{block}.0.in_layers.2.weight"] = channels, 1, 1, 1
    for level, channels in enumerate(LATENTS.channels):
        shapes[f"{VAE}encoder.down.{level}.block.0.conv1.weight"] = channels, 1, 1, 1
    middle = (64, 64) if second else (64, 64, 1, 1)
    shapes |= {
        f"{UNET}input_blocks.0.0.weight": (32, 4, 1, 1),
        f"{UNET}middle_block.1.proj_in.weight": middle,
        f"{VAE}decoder.conv_in.weight": (64, 4, 1, 1),
        f"{OPEN_CLIP}token_embedding.weight": (SIZE, WIDTH),
        f"{OPEN_CLIP}positional_embedding": (77, WIDTH),
    }
    return {mindone_name(name): np.full(shape, n, np.float32) for n, (name, shape) in enumerate(shapes.items())}


def write_small_model(folder: Path, second: bool) -> Path:
    """A random Stable Diffusion of either version in diffusers' layout, with CLIP's whole vocabulary."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(
            sample_size=8,
            block_out_channels=GEOMETRY.channels,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=GEOMETRY.layers,
            cross_attention_dim=WIDTH,
            attention_head_dim=[2, 4] if second else 4,
            use_linear_projection=second,
        ).save_pretrained(folder / "unet")
        AutoencoderKL(
            sample_size=16,
            block_out_channels=LATENTS.channels,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
        ).save_pretrained(folder / "vae")
        write_clip(folder / "text_encoder", dict.fromkeys(map(str, range(SIZE)), 0), second)
    write_clip_tokenizer(folder / "tokenizer", "!" if second else END)
    scheduler = write_scheduler(folder / "scheduler", "v_prediction" if second else "epsilon")
    write_json(folder / "model_index.json", _index(scheduler))
    return folder


OF_MINDONE: dict[str, Callable[[Path], Path]] = {
    "ldm1": partial(write_small_model, second=False),
    "ldm2": partial(write_small_model, second=True),
}
"""By the names that tests use."""


def _index(scheduler: str) -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
