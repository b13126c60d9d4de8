"""Flux.2: flow matching by a transformer on squares of 2 × 2 latents, told four-dimensional positions; its words are
three hidden states of a language model side by side.

Klein is told no strength of guidance: distilled (`is_distilled`), it answers without any; else a second answer guides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from . import flux
from .base import Family, Rows, TextEncoder

ABSENT = "ppdiffusers 0.29 has no Flux.2 transformer"
SYSTEM = """You are an AI that reasons about image descriptions. You give structured responses focusing on object relationships, object
attribution and actions without speculation."""  # noqa: E501
"""What dev's language model is told before each prompt, its line's end included."""


def image_ids(rows: Rows) -> NDArray[np.float32]:
    """[tokens, 4] position of each square: 0 (or a reference's time), row, column, 0."""
    return np.pad(flux.image_ids(rows), ((0, 0), (0, 1)))


def text_ids(rows: Rows) -> NDArray[np.float32]:
    """[tokens, 4] position of each word: 0, 0, 0, its number."""
    numbers = np.arange(rows.tokens, dtype=np.float32)[:, None]
    return np.pad(numbers, ((0, 0), (3, 0)))


KLEIN = Family(
    name="Flux.2 klein",
    pipelines=("Flux2KleinPipeline",),
    backends=("torch",),
    absent={"paddle": ABSENT, "mindspore": "mindone 0.5.0 has no Flux2KleinPipeline"},
    denoiser="transformer",
    inputs={name: value for name, value in flux.FLUX.inputs.items() if value != "pooled_prompt_embeds"},
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            layers=(9, 18, 27),
            chat={"add_generation_prompt": True, "enable_thinking": False},
            length=512,
            length_setting="max_sequence_length",
            lora_layers=(),
            fits_fp16=False,
        ),
    ),
    lora_layers=("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "attn.to_out"),
    extra={"image_ids": image_ids, "text_ids": text_ids, "guidance": flux.guidance},
    patch=flux.PATCH,
    stacks_squares=True,
    reference_time=10.0,
    time_scale=1 / 1000,
    guidance_scale=4.0,
    pipeline={"prompt_embeds": "prompt_embeds"},
)
DEV = replace(
    KLEIN,
    name="Flux.2 dev",
    pipelines=("Flux2Pipeline",),
    absent={
        "paddle": ABSENT,
        "mindspore": "mindone 0.5.0's Mistral3ForConditionalGeneration takes computed tables (inv_freq) for weights",
    },
    text_encoders=(
        replace(
            KLEIN.text_encoders[0],
            layers=(10, 20, 30),
            chat={"add_generation_prompt": False},
            system=SYSTEM,
            without="[IMG]",
        ),
    ),
    classifier_free=False,
)
"""With Mistral, which reads images too, and a strength of guidance that the transformer is told."""
