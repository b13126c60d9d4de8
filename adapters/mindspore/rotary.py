"""Rotary positions (2104.09864) by real numbers, where mindone's are complex: MindSpore differentiates no product of
those."""

from __future__ import annotations

import sys
from typing import Any

import mindspore as ms
from mindspore import Tensor, ops

COMPLEX = ("Lumina2Transformer2DModel",)
"""Transformers whose positions are complex numbers."""


def mend(cls: Any) -> None:
    """Let a class of mindone's turn queries and keys in a way that trains."""
    if cls.__name__ in COMPLEX:
        vars(sys.modules[cls.__module__])["apply_rotary_emb"] = turned


def turned(x: Tensor, freqs_cis: Tensor, use_real: bool = False) -> Tensor:
    """Pairs of numbers, each turned by its position's angle.

    Args:
        x: [B, tokens, heads, width].
        freqs_cis: complex [B, tokens, width/2].
    """
    assert not use_real
    cos, sin = (ops.expand_dims(part(freqs_cis), 2) for part in (ops.real, ops.imag))
    pairs = x.astype(ms.float32).reshape((*x.shape[:-1], -1, 2))
    first, second = pairs[..., 0], pairs[..., 1]
    both = ops.stack((first * cos - second * sin, first * sin + second * cos), -1)
    return both.reshape(x.shape).astype(x.dtype)
