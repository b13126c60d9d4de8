"""ERNIE-Image: flow matching by a transformer that reads squares of 2 × 2 latents, stacked as channels in their places,
and words in one row, told how many words there are; those are Mistral 3's."""

from __future__ import annotations

from .base import Family, TextEncoder

ERNIE_IMAGE = Family(
    name="ERNIE-Image",
    pipelines=("ErnieImagePipeline",),
    backends=("torch",),
    absent={
        "paddle": "ppdiffusers 0.29 has no ERNIE-Image transformer",
        "mindspore": "mindone 0.5 has no ErnieImageTransformer2DModel",
    },
    denoiser="transformer",
    inputs={"hidden_states": "x", "timestep": "t", "text_bth": "prompt_embeds", "text_lens": "word_counts"},
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            layer=-2,
            length=512,
            length_setting="max_sequence_length",
            lora_layers=(),
            trims=True,
            fits_fp16=False,
        ),
    ),
    lora_layers=tuple(f"self_attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    masks={"word_counts": lambda lengths, *_: lengths},
    patch=2,
    stacks_squares=True,
    sees_stacked=True,
    statistics_epsilon=1e-5,  # as its pipeline unscales latents, whatever the autoencoder's configuration says
    guidance_scale=4.0,
    pipeline={"prompt_embeds": "unpadded"},
)
