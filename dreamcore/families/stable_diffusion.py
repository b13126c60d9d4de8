"""Stable Diffusion 1.x and 2.x: one text encoder, a UNet with cross-attention, ε- or v-prediction."""

from __future__ import annotations

from .base import Family, TextEncoder

STABLE_DIFFUSION = Family(
    name="Stable Diffusion 1.x / 2.x",
    pipelines=("StableDiffusionPipeline",),
    backends=("torch", "paddle", "mindspore"),
    denoiser="unet",
    inputs={"sample": "x", "timestep": "t", "encoder_hidden_states": "prompt_embeds"},
    text_encoders=(TextEncoder("text_encoder", "tokenizer"),),
    usual_scaling=0.18215,
    lora_layers=("to_q", "to_k", "to_v", "to_out.0"),
)
