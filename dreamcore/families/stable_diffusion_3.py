"""Stable Diffusion 3 and 3.5 (2403.03206): flow matching by a transformer that joins words and image; three text
encoders, of which T5 may be left out."""

from __future__ import annotations

from .base import Family, TextEncoder

STABLE_DIFFUSION_3 = Family(
    name="Stable Diffusion 3 / 3.5",
    pipelines=("StableDiffusion3Pipeline",),
    backends=("torch", "paddle", "mindspore"),
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    },
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", layer=-2, pooled="text_embeds"),
        TextEncoder("text_encoder_2", "tokenizer_2", layer=-2, pooled="text_embeds"),
        TextEncoder(
            *("text_encoder_3", "tokenizer_3"),
            group=1,
            length=256,
            length_setting="max_sequence_length",
            lora_layers=(),
            optional=True,
            fits_fp16=False,
        ),
    ),
    lora_layers=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    ),
    weighting_scheme="logit_normal",
    guidance_scale=7.0,
)
