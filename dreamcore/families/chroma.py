"""Chroma: Flux.1's transformer without its pooled words and without a strength of guidance, by the words of T5 alone,
of which those that only fill up are masked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Family, TextEncoder
from .encoders import T5
from .flux import PATCH, image_ids, text_ids


def seen(lengths: NDArray[np.int64], tokens: int, image: int) -> NDArray[np.float32]:
    """[B, tokens + image] 1 for words, for the first token after them and for the image's, else 0; of which diffusers'
    transformer adds the products to the scores of its attention."""
    words = np.arange(tokens) <= lengths[:, None]
    return np.concatenate([words, np.ones((len(lengths), image))], 1, dtype=np.float32)


CHROMA = Family(
    name="Chroma",
    pipelines=("ChromaPipeline",),
    backends=("torch", "mindspore"),
    absent={"paddle": "ppdiffusers 0.29 has no Chroma transformer"},
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "img_ids": "image_ids",
        "txt_ids": "text_ids",
        "attention_mask": "seen",
    },
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            kind=T5,
            lora_layers=(),
            length=512,
            length_setting="max_sequence_length",
            sees_padding=False,
            fits_fp16=False,
        ),
    ),
    lora_layers=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    ),
    extra={"image_ids": image_ids, "text_ids": text_ids},
    masks={"seen": seen},
    patch=PATCH,
    time_scale=1 / 1000,
    guidance_scale=5.0,
    pipeline={"prompt_embeds": "prompt_embeds", "prompt_attention_mask": "seen"},
)
