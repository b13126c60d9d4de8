"""What trains beside a layer's weight, method by method: the shapes of the factors, and what they begin as.

All is arrays of NumPy in PyTorch's layout, so that the same run begins alike on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..config.method import LoraMethod
from ..diffusion.randomness import lora_factor
from ..formats.lora_arithmetic import factored
from ..formats.lora_kinds import LOHA, kronecker_shapes, row_norms
from ..formats.lora_raw import DOWN, FIRST_DOWN, FIRST_UP, MAGNITUDE, UP
from ..formats.weights import Arrays

FROZEN = (FIRST_DOWN, FIRST_UP)
"""Ends of the names of what does not train."""
_LOHA_DEVIATION = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_a": 0.0, "hada_w2_b": 1.0}
"""As LyCORIS begins (`lycoris/modules/loha.py`): a product of nothing."""


def factor_shapes(
    method: LoraMethod, shape: Sequence[int], rank: int, *, dora: bool = False, factor: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's factors by the ends of their names.

    Args:
        shape: of the layer's weight, [out, in] or [out, in, kh, kw].
        dora: whether the rows' lengths train besides.
        factor: LoKr's (`lora_kinds.kronecker_shapes`).
    """
    out, wide, ones = shape[0], math.prod(shape[1:]), (1,) * (len(shape) - 2)
    if method == "loha":
        return {f".{name}": (out, rank) if name.endswith("a") else (rank, wide) for name in LOHA}
    if method == "lokr":
        first, (c, d) = kronecker_shapes(out, shape[1], factor)
        if rank >= max(c, d) / 2:  # then a product would have more numbers
            return {".lokr_w1": first, ".lokr_w2": (c, d, *shape[2:])}
        return {".lokr_w1": first, ".lokr_w2_a": (c, rank), ".lokr_w2_b": (rank, d * math.prod(shape[2:]))}
    down, up = (rank, *shape[1:]), (out, rank, *ones)
    found: dict[str, tuple[int, ...]] = {DOWN: down, UP: up}
    if method == "pissa":
        found |= {FIRST_DOWN: down, FIRST_UP: up}
    return found | ({MAGNITUDE: (1, out, *ones) if ones else (out,)} if dora else {})


def first_values(
    method: LoraMethod,
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    name: str,
    *,
    scale: float,
    weight: NDArray[np.float32] | None = None,
) -> Arrays:
    """First values of a layer's factors, whose product is nothing; what they draw depends on seed and name alone.

    Args:
        shapes: `factor_shapes`.
        name: COMPONENT.LAYER.
        scale: by which LoRA's product counts.
        weight: the layer's, where the method asks for it (DoRA, PiSSA).
    """
    if method == "loha":
        return {end: _normal(seed, name + end, _LOHA_DEVIATION[end[1:]], shape) for end, shape in shapes.items()}
    if method == "lokr":  # as LyCORIS begins: all uniform but the last, which is nothing
        return {
            end: np.zeros(shape, np.float32) if end in (".lokr_w2", ".lokr_w2_b") else _uniform(seed, name + end, shape)
            for end, shape in shapes.items()
        }
    down = initial_down(seed, name, shapes[DOWN][0], math.prod(shapes[DOWN][1:])).reshape(shapes[DOWN])
    found: Arrays = {DOWN: down, UP: np.zeros(shapes[UP], np.float32)}
    if method == "pissa":
        assert weight is not None
        found = principal(weight, shapes[DOWN][0], scale)
    if MAGNITUDE in shapes:
        assert weight is not None
        found[MAGNITUDE] = row_norms(weight.astype(np.float64)).astype(np.float32).reshape(shapes[MAGNITUDE])
    return found


def principal(weight: NDArray[np.float32], rank: int, scale: float) -> Arrays:
    """PiSSA's factors (arXiv 2404.02948, equations 2 to 4): the largest singular values of a weight, their roots in
    each, and the same again, which is taken off for good: the run begins as the model is.

    Signs are those that make each left singular vector's largest entry positive.  Of large weights the values come
    from a randomised decomposition, as peft's `pissa_niter_N`; what the factors miss the weight keeps.
    """
    pair = factored(weight, rank)
    missing = rank - pair.rank
    down = np.concatenate([pair.down, np.zeros((missing, *pair.down.shape[1:]), np.float32)])
    up = np.concatenate([pair.up, np.zeros((len(pair.up), missing, *pair.up.shape[2:]), np.float32)], 1)
    down, up = down / np.float32(scale**0.5), up / np.float32(scale**0.5)
    return {DOWN: down, UP: up, FIRST_DOWN: down.copy(), FIRST_UP: up.copy()}


def initial_down(seed: int, name: str, rank: int, fan_in: int) -> NDArray[np.float32]:
    """First value [rank, fan_in] of a layer's down matrix A: uniform in ±1/√fan_in, as peft draws it.

    The up matrix B starts at zero (arXiv 2106.09685, section 4.1).  `name` is COMPONENT.LAYER, so that the draw does
    not depend on the order in which a framework walks its layers.
    """
    return _uniform(seed, name, (rank, fan_in))


def _uniform(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """In ±1/√(numbers of a row)."""
    bound = math.prod(shape[1:]) ** -0.5
    return lora_factor(seed, name).uniform(-bound, bound, shape).astype(np.float32)


def _normal(seed: int, name: str, deviation: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (deviation * lora_factor(seed, name).standard_normal(shape)).astype(np.float32)
