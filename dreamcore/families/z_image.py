"""Z-Image: flow matching by a transformer that reads words and image in one row, each sample by itself; its words are
Qwen 3's, of a chat."""

from __future__ import annotations

from .base import Family, TextEncoder

Z_IMAGE = Family(
    name="Z-Image",
    pipelines=("ZImagePipeline",),
    backends=("torch",),
    absent={
        "paddle": "ppdiffusers 0.29 has no Z-Image transformer",
        "mindspore": "mindone 0.5 has no ZImageTransformer2DModel",
    },
    denoiser="transformer",
    inputs={"x": "x", "t": "t", "cap_feats": "unpadded"},
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            layer=-2,
            length=512,
            length_setting="max_sequence_length",
            lora_layers=(),
            chat={"add_generation_prompt": True, "enable_thinking": True},
            trims=True,
            fits_fp16=False,
        ),
    ),
    lora_layers=("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
    lists=True,
    time_scale=1 / 1000,
    time_falls=True,
    output_sign=-1.0,
    guidance_scale=5.0,
    unguided=0.0,
    pipeline={"prompt_embeds": "unpadded"},
)
