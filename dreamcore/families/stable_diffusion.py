"""Stable Diffusion 1.x and 2.x: one text encoder, a UNet with cross-attention, ε- or v-prediction."""

from __future__ import annotations

from .base import Family

STABLE_DIFFUSION = Family(
    name="Stable Diffusion 1.x / 2.x",
    pipelines=("StableDiffusionPipeline",),
    denoiser="unet",
    text_encoders=(("tokenizer", "text_encoder"),),
    lora_layers=("to_q", "to_k", "to_v", "to_out.0"),
    text_lora_layers=("q_proj", "k_proj", "v_proj", "out_proj"),
)
