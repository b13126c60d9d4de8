"""A run's raw factors, by the names that backends keep them under, and what they come to."""

from __future__ import annotations

import numpy as np

from .lora_kinds import LOHA, LOKR
from .lora_pair import Pair, Pairs
from .weights import Arrays

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Endings of the raw factors' names, COMPONENT.LAYER before them."""
MAGNITUDE = ".lora_magnitude_vector"
"""DoRA's; [out], of a convolution [1, out, 1, 1], as peft has it."""
FIRST_DOWN, FIRST_UP = ".lora_A0", ".lora_B0"
"""What PiSSA's factors began as, whose product is taken off: they do not train."""


def pairs_of(factors: Arrays, scale: float) -> Pairs:
    """Raw factors (COMPONENT.LAYER.lora_A.weight and .lora_B.weight) by (component, layer), of scale = alpha/rank.

    PiSSA's come to plain LoRA of twice the rank against the untouched weights: s(BA − B₀A₀) = s[B, −B₀][A; A₀].
    LoHa's and LoKr's are not among them (`products_of`).
    """
    names = [name.removesuffix(DOWN) for name in factors if name.endswith(DOWN)]
    return {_placed(name): _pair_of(factors, name, scale) for name in names}


def _placed(name: str) -> tuple[str, str]:
    component, _, layer = name.partition(".")
    return component, layer


def _pair_of(factors: Arrays, name: str, scale: float) -> Pair:
    down, up, magnitude = factors[name + DOWN], factors[name + UP], factors.get(name + MAGNITUDE)
    if name + FIRST_DOWN in factors:
        down = np.concatenate([down, factors[name + FIRST_DOWN]])
        up = np.concatenate([up, -factors[name + FIRST_UP]], 1)
    return Pair(down, up, scale, None if magnitude is None else magnitude.reshape(-1))


def products_of(factors: Arrays, scale: float) -> dict[str, Arrays]:
    """LoHa's and LoKr's raw factors by COMPONENT.LAYER, then by the ends of their names, with alpha = scale · rank."""
    found: dict[str, Arrays] = {}
    for name, array in factors.items():
        layer, _, kind = name.rpartition(".")
        if kind in LOHA or kind in LOKR:
            found.setdefault(layer, {})[kind] = array
    for own in found.values():
        rank = next((len(own[kind]) for kind in ("lokr_w2_b", "lokr_w1_b", "hada_w1_b") if kind in own), None)
        own["alpha"] = np.array(1 if rank is None else scale * rank, np.float32)
    return found
