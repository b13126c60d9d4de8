"""Flux.1: flow matching by a transformer on squares of 2 × 2 latents, told positions and a strength of guidance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .base import Family, Rows, TextEncoder

PATCH = 2


def image_ids(rows: Rows) -> NDArray[np.float32]:
    """[tokens, 3] position of each square: 0, row, column; of a reference's after them as many of another first."""
    height, width = (side // PATCH for side in rows.latent)
    row, column = np.divmod(np.arange(height * width), width)
    times = [0.0] if rows.reference_time is None else [0.0, rows.reference_time]
    return np.concatenate([np.stack([np.full(len(row), t), row, column], 1) for t in times]).astype(np.float32)


def text_ids(rows: Rows) -> NDArray[np.float32]:
    """[tokens, 3] zeros: words have no position."""
    return np.zeros((rows.tokens, 3), np.float32)


def guidance(rows: Rows) -> NDArray[np.float32] | None:
    """[B] the strength that the model is to answer with; nothing for models distilled without it (schnell)."""
    return None if rows.guidance is None else np.full(len(rows.records), rows.guidance, np.float32)


FLUX = Family(
    name="Flux.1",
    pipelines=("FluxPipeline",),
    backends=("torch", "mindspore"),
    absent={"paddle": "ppdiffusers 0.29 has no Flux transformer"},
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
        "img_ids": "image_ids",
        "txt_ids": "text_ids",
        "guidance": "guidance",
    },
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", group=None, pooled="pooler_output"),
        TextEncoder(
            *("text_encoder_2", "tokenizer_2"),
            length=512,
            length_setting="max_sequence_length",
            lora_layers=(),
            fits_fp16=False,
        ),
    ),
    lora_layers=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    ),
    extra={"image_ids": image_ids, "text_ids": text_ids, "guidance": guidance},
    patch=PATCH,
    time_scale=1 / 1000,
    guidance_scale=3.5,
    classifier_free=False,
)
KONTEXT = replace(FLUX, name="Flux.1 Kontext", pipelines=("FluxKontextPipeline",), reference_time=1.0)
"""From words alone the same; a reference image's squares follow those of the noisy one."""
