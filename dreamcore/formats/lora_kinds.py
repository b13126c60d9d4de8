"""What other methods than LoRA put beside a layer's weight: LoHa's and LoKr's products of factors, DoRA's magnitude.

The formulas take arrays of NumPy and tensors of every framework alike, by what all of these have: products, reshaping,
sums.  LoHa and LoKr are LoRA of a larger rank, exactly; that is how files of theirs are read.

Sources: LoHa arXiv 2108.06098 (FedPara), proposition 1, and 2309.14859; LoKr arXiv 2212.10650 (KronA) and 2309.14859;
DoRA arXiv 2402.09353, equation 5; names and shapes as LyCORIS 4 has them (`lycoris/modules/{loha,lokr,locon}.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
LOKR_LEFT, LOKR_RIGHT = ("lokr_w1", "lokr_w1_a", "lokr_w1_b"), ("lokr_w2", "lokr_w2_a", "lokr_w2_b")
LOKR = (*LOKR_LEFT, *LOKR_RIGHT)
"""Ends of the names of a layer's factors."""
Matrix = NDArray[Any]


def hadamard(w1_a: Any, w1_b: Any, w2_a: Any, w2_b: Any) -> tuple[Any, Any]:
    """LoHa's ΔW = (w1_a · w1_b) ⊙ (w2_a · w2_b) as down [r², in·kh·kw] and up [out, r²], exactly.

    Every row of up is the Kronecker product of two rows, every column of down that of two columns.

    Args:
        w1_a, w2_a: [out, r].
        w1_b, w2_b: [r, in·kh·kw].
    """
    (out, r), (_, wide) = w1_a.shape, w1_b.shape
    up = (w1_a.reshape((out, r, 1)) * w2_a.reshape((out, 1, r))).reshape((out, r * r))
    down = (w1_b.reshape((r, 1, wide)) * w2_b.reshape((1, r, wide))).reshape((r * r, wide))
    return down, up


def kronecker(w1: Any, w2: Any) -> Any:
    """w1 ⊗ w2: [a·c, b·d] of [a, b] and [c, d]."""
    (a, b), (c, d) = w1.shape, w2.shape
    return (w1.reshape((a, 1, b, 1)) * w2.reshape((1, c, 1, d))).reshape((a * c, b * d))


def kronecker_answer(x: Any, w1: Any, w2: Sequence[Any]) -> Any:
    """What a Linear layer of the weight w1 ⊗ w2 answers to x [..., b·d], without making that weight.

    Args:
        w2: the matrices whose product it is.
    """
    parts = x.reshape((*x.shape[:-1], w1.shape[1], -1))
    for factor in reversed(w2):
        parts = parts @ factor.T
    return (w1 @ parts).reshape((*x.shape[:-1], -1))


def linear_answer(x: Any, factors: Mapping[str, Any]) -> Any:
    """What a Linear layer of the product of factors answers to x [..., in].

    Args:
        factors: LoHa's or LoKr's by the ends of their names, or lora_A0 [r, in] and lora_B0 [out, r].
    """
    if "lokr_w1" in factors:
        whole = [factors["lokr_w2"]] if "lokr_w2" in factors else [factors["lokr_w2_a"], factors["lokr_w2_b"]]
        return kronecker_answer(x, factors["lokr_w1"], whole)
    down, up = _two(factors)
    return (x @ down.T) @ up.T


def whole_product(factors: Mapping[str, Any], shape: Sequence[int]) -> Any:
    """The product of factors, as `linear_answer` takes them, in a weight's shape."""
    if "lokr_w1" in factors:
        small = factors["lokr_w2"] if "lokr_w2" in factors else factors["lokr_w2_a"] @ factors["lokr_w2_b"]
        product = kronecker(factors["lokr_w1"], small.reshape((small.shape[0], -1)))
    else:
        down, up = _two(factors)
        product = up.reshape((up.shape[0], -1)) @ down.reshape((down.shape[0], -1))
    return product.reshape(tuple(shape))


def _two(factors: Mapping[str, Any]) -> tuple[Any, Any]:
    if "hada_w1_a" in factors:
        return hadamard(*(factors[name] for name in LOHA))
    return factors["lora_A0"], factors["lora_B0"]


def row_norms(weight: Any) -> Any:
    """[out] Euclidean norms of the rows of [out, …]."""
    flat = weight.reshape((weight.shape[0], -1))
    return (flat * flat).sum(1) ** 0.5


def decomposed(weight: Matrix, change: Matrix, magnitude: Matrix) -> NDArray[np.float32]:
    """DoRA's weight m · (W + ΔW) / ‖W + ΔW‖, each row, in float32.

    Args:
        weight, change: [out, …].
        magnitude: [out].
    """
    total = weight.astype(np.float32) + change.reshape(weight.shape).astype(np.float32)
    ratio = magnitude.reshape(-1).astype(np.float64) / row_norms(total.astype(np.float64))
    found: NDArray[np.float32] = (total * ratio.reshape(-1, *(1,) * (total.ndim - 1))).astype(np.float32)
    return found


def kronecker_shapes(out: int, inputs: int, factor: int | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of LoKr's w1 and w2, whose product is [out, inputs].

    Args:
        factor: how large w1's sides are to be, where they divide the weight's; None: next to their roots.

    >>> kronecker_shapes(320, 1280, None), kronecker_shapes(320, 768, 8)
    (((16, 32), (20, 40)), ((8, 8), (40, 96)))
    """
    (a, c), (b, d) = _divided(out, factor), _divided(inputs, factor)
    return (a, b), (c, d)


def _divided(count: int, factor: int | None) -> tuple[int, int]:
    """Two numbers whose product it is, the smaller first: the pair next to the root, or whose first is the largest
    divisor up to the factor, where the factor itself is none."""
    if factor is not None and count % factor == 0:
        return min(factor, count // factor), max(factor, count // factor)
    most = min(factor or count, int(count**0.5))
    first = next(n for n in range(most, 0, -1) if count % n == 0)
    return first, count // first


def as_factors(kinds: Mapping[str, Matrix]) -> tuple[Matrix, Matrix, int | None] | None:
    """LoHa's or LoKr's factors of a layer as LoRA's of the same product: down, up, and the rank over which alpha is
    counted (None: alpha counts for nothing, as both of LoKr's matrices are whole).

    Never of a larger rank than the product has room for.  A convolution's down matrix is [rank, in·kh·kw] where the
    factors do not say its kernel.

    Returns:
        None where factors are missing, left over, or do not fit each other.
    """
    there = {kind: value.astype(np.float32) for kind, value in kinds.items()}
    try:
        if there.keys() == set(LOHA):
            down, up = hadamard(*(there[kind] for kind in LOHA))
            return (*_smaller(down, up), there["hada_w1_b"].shape[0])
        return _from_kronecker(there) if there and there.keys() <= set(LOKR) else None
    except (KeyError, ValueError):
        return None


def _from_kronecker(there: Mapping[str, Matrix]) -> tuple[Matrix, Matrix, int | None]:
    ranks = [there[kind].shape[0] for kind in ("lokr_w1_b", "lokr_w2_b") if kind in there]
    w1 = there["lokr_w1"] if "lokr_w1" in there else there["lokr_w1_a"] @ there["lokr_w1_b"]
    kernel: tuple[int, ...] = ()
    if "lokr_w2" in there:
        kernel, w2 = there["lokr_w2"].shape[2:], there["lokr_w2"].reshape(len(there["lokr_w2"]), -1)
        down, up = _through_identity(kronecker(w1, w2))
    else:
        left, right = there["lokr_w2_a"], there["lokr_w2_b"]
        one, other = (np.eye(side, dtype=np.float32) for side in w1.shape)
        if len(one) < len(other):
            down, up = kronecker(w1, right), kronecker(one, left)
        else:
            down, up = kronecker(other, right), kronecker(w1, left)
        down, up = _smaller(down, up)
    if any(n != 1 for n in kernel):
        down = down.reshape(len(down), -1, *kernel)
    return down, up, ranks[-1] if ranks else None  # as ComfyUI: w2's, where both are products


def _smaller(down: Matrix, up: Matrix) -> tuple[Matrix, Matrix]:
    """Factors of a rank that is no larger than a side of their product."""
    return (down, up) if len(down) <= min(len(up), down.shape[1]) else _through_identity(up @ down)


def _through_identity(change: Matrix) -> tuple[Matrix, Matrix]:
    """A whole matrix as a pair of factors, one of which changes nothing."""
    out, inputs = change.shape
    if inputs < out:
        return np.eye(inputs, dtype=np.float32), change
    return change, np.eye(out, dtype=np.float32)
