"""LoRA's conventions, the same on every backend: first values, published names, alpha folded into the file."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .rng import Purpose, generator
from .weights import read_safetensors

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Endings of the raw factors' names, COMPONENT.LAYER before them."""
_KINDS = {
    "lora.down.weight": "down", "lora_linear_layer.down.weight": "down", "lora_A.weight": "down",
    "lora.up.weight": "up", "lora_linear_layer.up.weight": "up", "lora_B.weight": "up",
    "alpha": "alpha", "lora.alpha": "alpha", "lora_linear_layer.alpha": "alpha",
}  # fmt: skip
_FACTOR = re.compile(rf"(?P<component>[a-z0-9_]+)\.(?P<layer>.+?)\.(?P<kind>{'|'.join(map(re.escape, _KINDS))})")


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

    >>> published_name("transformer.transformer_blocks.0.attn.to_q.lora_A.weight")
    'transformer.transformer_blocks.0.attn.to_q.lora_A.weight'

    >>> published_name("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight")
    'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight'
    """
    if factor.startswith("transformer."):  # of SD3, Flux and all that came later: peft's own names
        return factor
    infix = "lora_linear_layer" if factor.startswith("text_encoder") else "lora"
    return factor.replace(DOWN, f".{infix}.down.weight").replace(UP, f".{infix}.up.weight")


@dataclass(frozen=True)
class Pair:
    """One layer's factors in PyTorch's layout, and the scale alpha/rank that is not in them yet."""

    down: NDArray[Any]
    up: NDArray[Any]
    scale: float


def read_lora(file: Path) -> dict[tuple[str, str], Pair]:
    """The factors of a LoRA file in diffusers' names, old or new, by (component, layer).

    Raises:
        ConfigError: a name that is not understood, or a factor without its other half.
    """
    parts: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
    for name, array in read_safetensors(file).items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            raise ConfigError(f"lora: {file}: {name}: not a name that diffusers gives a LoRA factor")
        parts.setdefault((match["component"], match["layer"]), {})[_KINDS[match["kind"]]] = array
    for (component, layer), pair in parts.items():
        if not {"down", "up"} <= pair.keys():
            raise ConfigError(f"lora: {file}: {component}.{layer}: has only {', '.join(pair)} of its factors")
    return {
        key: Pair(pair["down"], pair["up"], float(pair["alpha"].item()) / len(pair["down"]) if "alpha" in pair else 1.0)
        for key, pair in parts.items()
    }
