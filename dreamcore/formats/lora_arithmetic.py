"""What can be computed of LoRA factors: several in one, another rank, a full weight, and factors of a difference.

A layer's difference is ΔW = scale · up · down (arXiv 2106.09685), a convolution's too: down is [rank, in, kh, kw], up
[out, rank, 1, 1], and as matrices they are [rank, in·kh·kw] and [out, rank].  Merging and resizing never form ΔW: with
up = Q₁R₁ and downᵀ = Q₂R₂ the small matrix R₁R₂ᵀ has its singular values.

Concatenating factors and adding LoRA to weights give the same bits on every machine: float32, and no sum whose order a
library chooses.  Another rank and the factors of a difference come from LAPACK, whose last bits depend on how it was
built; the signs of singular vectors, which it leaves open, are chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diffusion.randomness import svd_probe
from ..errors import ConfigError
from .lora_kinds import decomposed
from .lora_pair import Pair, Pairs
from .renaming import cast
from .tensors import Entry, as_float

Matrix = NDArray[Any]
OVERSAMPLING, POWER_ITERATIONS = 16, 3
"""Of the randomised decomposition: more columns than wanted, and multiplications by ΔWΔWᵀ (arXiv 0909.4061, 4.4)."""
BLOCK = 1 << 16
"""Numbers of a product that are summed at a time: they stay in the processor's cache."""


def product(pair: Pair) -> NDArray[np.float32]:
    """ΔW [out, in] or [out, in, kh, kw] of a layer, in float32: a sum over ranks, the first first.

    A matrix product would be faster, and its last bits would depend on the processor.
    """
    up, down = _matrices(pair, np.float32)
    up = up * np.float32(pair.scale)
    total = np.zeros((len(up), down.shape[1]), np.float32)
    rows = max(1, BLOCK // max(down.shape[1], 1))
    for start in range(0, len(up), rows):
        part = total[start : start + rows]
        term = np.empty_like(part)
        for column, row in zip(up[start : start + rows].T, down, strict=True):
            part += np.multiply(column[:, None], row, out=term)
    return total.reshape(len(up), *pair.down.shape[1:])


def added(weight: NDArray[Any], pairs: Sequence[tuple[Pair, float]], what: str) -> NDArray[np.float32]:
    """A weight with LoRA in it: W + Σ strength · ΔW, in float32; with DoRA, ΔW = m(W + ΔW)/‖W + ΔW‖ − W.

    Args:
        weight: [out, in] or [out, in, kh, kw].
        pairs: factors, each with its strength.
        what: the layer, for messages.

    Raises:
        ConfigError: factors of another layer.
    """
    total = weight.astype(np.float32)
    for pair, strength in pairs:
        change = product(pair)
        if change.size != weight.size or change.shape[:2] != weight.shape[:2]:  # 1 × 1 kernels are written or not
            raise ConfigError(f"{what}: its LoRA is for a weight {change.shape}; the model's is {weight.shape}")
        if pair.magnitude is not None:
            change = decomposed(weight, change, pair.magnitude) - weight.astype(np.float32)
        total += np.float32(strength) * change.reshape(weight.shape)
    return total


def concatenated(loras: Sequence[tuple[Pairs, float]], what: str) -> dict[tuple[str, str], Pair]:
    """Several LoRAs as one: its ranks are the sums of theirs, its ΔW exactly the sum of strength · ΔW, scale 1.

    Args:
        loras: each with its strength.

    Raises:
        ConfigError: factors of one layer that are for weights of different shapes; DoRA, which is no sum of factors.
    """
    for pairs, _ in loras:
        if place := next((place for place, pair in pairs.items() if pair.magnitude is not None), None):
            raise ConfigError(
                f"{what}: {'.'.join(place)}: DoRA is not merged into another LoRA, as it depends on the weights; give "
                "pretrained_model_name_or_path, and it is merged into the model"
            )
    found: dict[tuple[str, str], Pair] = {}
    for place in sorted({place for pairs, _ in loras for place in pairs}):
        parts = [(pairs[place], strength) for pairs, strength in loras if place in pairs]
        first = parts[0][0]
        matrices = [(_matrices(pair, np.float32), np.float32(pair.scale * strength)) for pair, strength in parts]
        if len({(len(up), down.shape[1]) for (up, down), _ in matrices}) > 1:
            shapes = " and ".join(str((len(up), down.shape[1])) for (up, down), _ in matrices)
            raise ConfigError(f"{what}: {'.'.join(place)}: the files are for different models: {shapes}")
        up = np.concatenate([up * scale for (up, _), scale in matrices], 1)
        down = np.concatenate([down for (_, down), _ in matrices])
        found[place] = _shaped(up, down, first.down.shape[1:])
    return found


def resized(pair: Pair, rank: int) -> tuple[Pair, float]:
    """The factors of that rank whose ΔW is the nearest (Eckart and Young), scale 1; the singular values' roots in each.

    Returns:
        Them, never of a rank above what ΔW has room for, and the relative error ‖ΔW − ΔW'‖/‖ΔW‖ (Frobenius) of exact
        numbers.
    """
    up, down = _matrices(pair, np.float64)
    q1, r1 = np.linalg.qr(up * pair.scale)
    q2, r2 = np.linalg.qr(down.T)
    u, s, vt = np.linalg.svd(r1 @ r2.T)
    left, right = _with_signs(q1 @ u[:, : len(s)], vt[: len(s)] @ q2.T)
    rest = float(np.linalg.norm(s[rank:]) / norm) if (norm := float(np.linalg.norm(s))) > 0 else 0.0
    return replace(_balanced(left, s, right, rank, pair.down.shape[1:]), magnitude=pair.magnitude), rest


def factored(difference: NDArray[Any], rank: int) -> Pair:
    """Factors of that rank that are nearest to a difference of weights [out, in] or [out, in, kh, kw], scale 1.

    Large ones are decomposed in the space that a random matrix, always the same, finds (arXiv 0909.4061, algorithm
    4.4); their errors come within a few per cent of the least.
    """
    matrix = difference.reshape(len(difference), -1).astype(np.float32)
    columns = rank + OVERSAMPLING
    if min(matrix.shape) <= 4 * columns:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    else:
        space = matrix @ svd_probe(matrix.shape[1], columns)
        for _ in range(POWER_ITERATIONS):
            space = matrix @ (matrix.T @ np.linalg.qr(space)[0])
        q = np.linalg.qr(space)[0]
        u, s, vt = np.linalg.svd(q.T @ matrix, full_matrices=False)
        u = q @ u
    left, right = _with_signs(u, vt)
    return _balanced(left, s, right, rank, difference.shape[1:])


def rounded(pair: Pair, dtype: str) -> Pair:
    """Factors as a file holds them, in float32.

    Args:
        dtype: of the file's numbers, as safetensors calls it.
    """
    down, up = (as_float(cast(Entry.of(np.asarray(factor)), dtype)) for factor in (pair.down, pair.up))
    return replace(pair, down=down.astype(np.float32), up=up.astype(np.float32))


def relative_error(wanted: Pair, found: Pair) -> float:
    """‖ΔW − ΔW'‖/‖ΔW‖ of two layers' factors as they are (Frobenius), rounding included; 0 where ΔW is nothing."""
    (up, down), (other_up, other_down) = _matrices(wanted, np.float64), _matrices(found, np.float64)
    norm = _norm(up * wanted.scale, down)
    both = np.concatenate([up * wanted.scale, -other_up * found.scale], 1), np.concatenate([down, other_down])
    return _norm(*both) / norm if norm > 0 else 0.0


def _norm(up: Matrix, down: Matrix) -> float:
    """‖up · down‖ (Frobenius)."""
    return float(np.linalg.norm(np.linalg.qr(up).R @ np.linalg.qr(down.T).R.T))


def _matrices(pair: Pair, kind: Any) -> tuple[Matrix, Matrix]:
    """up [out, rank] and down [rank, in·kh·kw]."""
    up, down = pair.up.astype(kind), pair.down.astype(kind)
    return up.reshape(len(up), len(down)), down.reshape(len(down), -1)


def _shaped(up: Matrix, down: Matrix, inputs: tuple[int, ...]) -> Pair:
    """Factors as files have them.

    Args:
        inputs: (in,) of a Linear layer, (in, kh, kw) of a convolution.
    """
    ones = (1,) * (len(inputs) - 1)
    shaped_up, shaped_down = up.reshape(*up.shape, *ones), down.reshape(len(down), *inputs)
    return Pair(shaped_down.astype(np.float32), shaped_up.astype(np.float32), 1.0)


def _balanced(left: Matrix, values: Matrix, right: Matrix, rank: int, inputs: tuple[int, ...]) -> Pair:
    """The first `rank` of left · diag(values) · right; each factor gets the values' roots, within float16's range."""
    roots = np.sqrt(values[:rank])
    return _shaped(left[:, :rank] * roots, roots[:, None] * right[:rank], inputs)


def _with_signs(left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """Singular vectors [out, k] and [k, in] with the sign that makes each left one's largest entry positive."""
    largest = np.abs(left).argmax(0)
    signs = np.where(left[largest, np.arange(left.shape[1])] < 0, -1, 1).astype(left.dtype)
    return left * signs, right * signs[:, None]
