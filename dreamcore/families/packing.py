"""Squares of latents as tokens: how Flux receives an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(latents: NDArray[Any], patch: int) -> NDArray[Any]:
    """[B, C, h, w] as tokens [B, h/p · w/p, C·p·p], row by row, each C-major; as they are for p = 1."""
    if patch == 1:
        return latents
    b, c, h, w = latents.shape
    squares = latents.reshape(b, c, h // patch, patch, w // patch, patch).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(squares.reshape(b, h * w // patch**2, c * patch**2))


def stacked(latents: NDArray[Any], patch: int) -> NDArray[Any]:
    """[B, C, h, w] as squares [B, C·p·p, h/p, w/p], each C-major; as they are for p = 1."""
    if patch == 1:
        return latents
    b, c, h, w = latents.shape
    return pack(latents, patch).transpose(0, 2, 1).reshape(b, c * patch**2, h // patch, w // patch)


def unpack(tokens: NDArray[Any], patch: int, size: tuple[int, int]) -> NDArray[Any]:
    """`pack` or `stacked` undone, for latents of (h, w); those are left as they are."""
    if tokens.shape[2:] == size:
        return tokens
    if tokens.ndim == 4:
        tokens = tokens.reshape(*tokens.shape[:2], -1).transpose(0, 2, 1)
    (h, w), (b, _, width) = size, tokens.shape
    squares = tokens.reshape(b, h // patch, w // patch, width // patch**2, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(squares.reshape(b, width // patch**2, h, w))
