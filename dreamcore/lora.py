"""LoRA's conventions, the same on every backend: first values, published names, alpha folded into the file."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from .rng import Purpose, generator

Float = NDArray[np.float32]


def initial_down(seed: int, name: str, rank: int, fan_in: int) -> Float:
    """First value [rank, fan_in] of a layer's down matrix A: uniform in ±1/√fan_in, as peft draws it.

    The up matrix B starts at zero (arXiv 2106.09685, section 4.1).  `name` is COMPONENT.LAYER, so that the draw does
    not depend on the order in which a framework walks its layers.
    """
    bound = fan_in**-0.5
    draw = generator(seed, Purpose.LORA_INIT, zlib.crc32(name.encode()))
    return draw.uniform(-bound, bound, (rank, fan_in)).astype(np.float32)


def published(factors: dict[str, Float], scale: float) -> dict[str, Float]:
    """The file that readers get: factors under the names they load, with scale = alpha/rank folded into B.

    Args:
        factors: raw factors under `COMPONENT.LAYER.lora_A.weight` and `.lora_B.weight`.
    """
    return {name: value * np.float32(scale) if ".lora_B." in name else value for name, value in factors.items()}
