"""Stable Diffusion XL (2307.01952): two text encoders, and a UNet that is told each sample's size and crop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Family, Rows, TextEncoder


def time_ids(rows: Rows) -> NDArray[np.float32]:
    """[B, 6] height and width of the photograph, top and left of the crop, height and width of the training image."""
    return np.array([[*r.original, *r.corner, *r.target] for r in rows.records], np.float32)


STABLE_DIFFUSION_XL = Family(
    name="Stable Diffusion XL",
    pipelines=("StableDiffusionXLPipeline",),
    backends=("torch", "paddle", "mindspore"),
    denoiser="unet",
    inputs={
        "sample": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "added_cond_kwargs.text_embeds": "pooled_prompt_embeds",
        "added_cond_kwargs.time_ids": "time_ids",
    },
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", layer=-2),
        TextEncoder("text_encoder_2", "tokenizer_2", layer=-2, pooled="text_embeds"),
    ),
    lora_layers=("to_q", "to_k", "to_v", "to_out.0"),
    extra={"time_ids": time_ids},
    zeroes_empty=True,
)
