"""Krea 2: flow matching by a transformer that reads words and squares of 2 × 2 latents in one row, told positions; its
words are twelve hidden states of Qwen 3 VL, which it weighs itself, behind an instruction that it does not see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Family, Rows, TextEncoder, words_mask
from .flux import PATCH, image_ids, text_ids
from .qwen_image import INSTRUCTION, TEMPLATE

BEFORE, AFTER = TEMPLATE.split("{}")


def positions(rows: Rows) -> NDArray[np.float32]:
    """[tokens, 3] of words, none, and of squares after them: 0, row, column."""
    return np.concatenate([text_ids(rows), image_ids(rows)])


KREA_2 = Family(
    name="Krea 2",
    pipelines=("Krea2Pipeline",),
    backends=("torch",),
    absent={
        "paddle": "ppdiffusers 0.29 has no Krea 2 transformer",
        "mindspore": "mindone 0.5 has no Krea2Transformer2DModel",
    },
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "words_mask",
        "position_ids": "positions",
    },
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            layers=(2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35),
            length=512,
            length_setting="max_sequence_length",
            lora_layers=(),
            template=f"{BEFORE}{{}}",
            ending=AFTER,
            drops=lambda _: INSTRUCTION,
            pads_right=True,
            fits_fp16=False,
        ),
    ),
    lora_layers=(
        *("to_q", "to_k", "to_v", "to_out.0", "to_gate", "ff.up", "ff.down"),
        *("img_in", "final_layer.linear", "text_fusion.projector", "txt_in.linear_1", "txt_in.linear_2"),
        *("time_embed.linear_1", "time_embed.linear_2", "time_mod_proj"),
    ),
    extra={"positions": positions},
    masks={"words_mask": lambda *given: words_mask(*given).astype(bool)},
    parts_words=12,
    patch=PATCH,
    time_scale=1 / 1000,
    guidance_scale=4.5,
    unguided=0.0,
    lora_updates=1000,
    pipeline={"prompt_embeds": "prompt_embeds", "prompt_embeds_mask": "words_mask"},
)
"""Trained on Raw; Turbo, distilled to eight steps, makes images with what was learnt (`is_distilled`: unguided)."""
