"""A transformer's forward pass in NumPy: what the encoders of images and words have in common (arXiv 2010.11929).

Each layer, pre-norm, of tokens x [N, T, D]:

    x += s1 · (softmax(Q Kᵀ / √d) V) W_out,   Q, K, V = LayerNorm(x) W_q, W_k, W_v      in heads of d = D / heads
    x += s2 · act(LayerNorm(x) W_up) W_down                                              s1, s2: DINOv2's scales, else 1

Everything is float32, as the published weights are run.  No framework is needed, so a score does not depend on which
backend made the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Activation = Callable[[Float], Float]


def gelu(x: Float) -> Float:
    """x Φ(x) (arXiv 1606.08415), erf by Abramowitz and Stegun 7.1.26, which is off by 1.5e-7 at most."""
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    erf = np.copysign(1 - series * np.exp(-z * z), x)
    return np.asarray(x * (1 + erf) / 2, np.float32)


def quick_gelu(x: Float) -> Float:
    """x σ(1.702 x), OpenAI CLIP's."""
    return np.asarray(x / (1 + np.exp(np.float32(-1.702) * np.clip(x, -50, None))), np.float32)


ACTIVATIONS: dict[str, Activation] = {"gelu": gelu, "quick_gelu": quick_gelu}


def layer_norm(x: Float, weight: Float, bias: Float, eps: float) -> Float:
    """Over the last axis (arXiv 1607.06450)."""
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(eps))
    return np.asarray(centred / deviation * weight + bias, np.float32)


@dataclass(frozen=True)
class Transformer:
    """Layers of one width.

    Args:
        layers: of each, its arrays: NAME.weight and NAME.bias of norm1, q, k, v, out, norm2, up, down; weights of
            Linear layers as [out, in]; scale1 and scale2 [D] where it has them.
        eps: of its LayerNorms.
    """

    layers: tuple[Mapping[str, Float], ...]
    heads: int
    eps: float
    activation: Activation

    def __call__(self, x: Float, *, causal: bool = False) -> Float:
        """[N, T, D] after the last layer; `causal`: no token heeds a later one."""
        mask = np.triu(np.full((x.shape[1],) * 2, -np.inf, np.float32), 1) if causal else None
        for layer in self.layers:
            x = x + self._attend(layer, self._norm(layer, "norm1", x), mask) * layer.get("scale1", np.float32(1))
            hidden = self.activation(linear(layer, "up", self._norm(layer, "norm2", x)))
            x = x + linear(layer, "down", hidden) * layer.get("scale2", np.float32(1))
        return x

    def _norm(self, layer: Mapping[str, Float], name: str, x: Float) -> Float:
        return layer_norm(x, layer[f"{name}.weight"], layer[f"{name}.bias"], self.eps)

    def _attend(self, layer: Mapping[str, Float], x: Float, mask: Float | None) -> Float:
        n, tokens, width = x.shape
        q, k, v = (
            linear(layer, name, x).reshape(n, tokens, self.heads, width // self.heads).transpose(0, 2, 1, 3)
            for name in "qkv"
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width // self.heads))
        if mask is not None:
            scores = scores + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        return linear(layer, "out", mixed.transpose(0, 2, 1, 3).reshape(n, tokens, width))


def linear(layer: Mapping[str, Float], name: str, x: Float) -> Float:
    """x Wᵀ + b, without b where there is none."""
    bias = layer.get(f"{name}.bias")
    out = x @ layer[f"{name}.weight"].T
    return np.asarray(out if bias is None else out + bias, np.float32)


def patches(pixels: Float, kernel: Float, bias: Float | None) -> Float:
    """[N, P, D] of pictures [N, 3, H, W], cut into squares row by row: a convolution whose stride is its kernel's side;
    what is left at the right and below is not seen.

    Args:
        kernel: [D, 3, side, side].
    """
    n, channels, height, width = pixels.shape
    side = kernel.shape[-1]
    rows, columns = height // side, width // side
    squares = pixels[:, :, : rows * side, : columns * side].reshape(n, channels, rows, side, columns, side)
    flat = squares.transpose(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, -1)
    out = flat @ kernel.reshape(len(kernel), -1).T
    return np.asarray(out if bias is None else out + bias, np.float32)


def resized(positions: Float, rows: int, columns: int) -> Float:
    """A square of positions [side², D] brought to another grid, [rows · columns, D], bicubically as PyTorch does it:
    Keys' kernel (1981) with a = -0.75, half-pixel centres, borders repeated."""
    side = math.isqrt(len(positions))
    if (rows, columns) == (side, side):
        return positions
    square = positions.reshape(side, side, -1)
    out = np.einsum("ri,cj,ijd->rcd", _bicubic(side, rows), _bicubic(side, columns), square, optimize=True)
    return np.asarray(out.reshape(rows * columns, -1), np.float32)


def _bicubic(old: int, new: int) -> Float:
    """[new, old] of weights along one axis."""
    matrix, a = np.zeros((new, old), np.float32), -0.75
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        first = math.floor(centre) - 1
        for at in range(first, first + 4):
            d = abs(centre - at)
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
            matrix[row, min(max(at, 0), old - 1)] += near if d <= 1 else far
    return matrix
