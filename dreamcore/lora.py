"""LoRA's conventions, the same on every backend: first values, published names, alpha folded into the file."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from .rng import Purpose, generator

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Endings of the raw factors' names, COMPONENT.LAYER before them."""


def initial_down(seed: int, name: str, rank: int, fan_in: int) -> NDArray[np.float32]:
    """First value [rank, fan_in] of a layer's down matrix A: uniform in ±1/√fan_in, as peft draws it.

    The up matrix B starts at zero (arXiv 2106.09685, section 4.1).  `name` is COMPONENT.LAYER, so that the draw does
    not depend on the order in which a framework walks its layers.
    """
    bound = fan_in**-0.5
    draw = generator(seed, Purpose.LORA_INIT, zlib.crc32(name.encode()))
    return draw.uniform(-bound, bound, (rank, fan_in)).astype(np.float32)


def published_name(factor: str) -> str:
    """The name under which diffusers' own scripts publish a factor, which diffusers, A1111 and ComfyUI read.

    >>> published_name("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight")
    'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight'
    """
    infix = "lora_linear_layer" if factor.startswith("text_encoder") else "lora"
    return factor.replace(DOWN, f".{infix}.down.weight").replace(UP, f".{infix}.up.weight")
