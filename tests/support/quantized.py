"""Weights in fewer bits, worked in NumPy from the papers: what a quantised layer must compute with."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def normal_floats() -> NDArray[np.float64]:
    """The sixteen values of NF4: quantiles of a normal distribution, eight above 0, seven below, and 0, over the
    largest (QLoRA, arXiv 2305.14314, section 3).  The outermost leave (1/32 + 1/30) / 2 of the distribution beyond
    them, as the authors' own code has it."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    quantile = NormalDist().inv_cdf
    above = [quantile(p) for p in np.linspace(outermost, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(outermost, 0.5, 8)[:-1]]
    values = np.sort(np.array([*above, 0.0, *below]))
    return values / values.max()


def eight_bit_floats() -> NDArray[np.float64]:
    """The values of E4M3 that are not negative (arXiv 2209.05433, table 1): four bits of exponent with a bias of 7,
    three of mantissa; 1111.111 is no number."""
    codes = range(127)
    return np.array(
        [(m / 8 if not e else 1 + m / 8) * 2.0 ** (max(e, 1) - 7) for e, m in (divmod(c, 8) for c in codes)]
    )


def as_kept(weight: Array, method: str) -> Array:
    """What is left of a weight [out, …] in float32."""
    if method == "nf4":
        return _nf4(weight)
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.maximum(np.abs(rows).max(1, keepdims=True), np.finfo(np.float32).tiny)
    if method == "int8":
        factor = _up_to_bfloat16(largest / 127)
        whole = np.round(rows / factor) * factor
    else:
        factor = 2.0 ** np.ceil(np.log2(largest / 448))
        values = eight_bit_floats()
        whole = np.sign(rows) * _nearest(np.abs(rows) / factor, values) * factor
    return whole.reshape(weight.shape).astype(np.float32)


def _nf4(weight: Array) -> Array:
    numbers = weight.ravel().astype(np.float64)
    blocks = np.pad(numbers, (0, -len(numbers) % 64)).reshape(-1, 64)
    largest = np.abs(blocks).max(1)
    unit = _nearest(blocks / np.maximum(largest, 1e-38)[:, None], normal_floats())
    mean = largest.mean()
    rest = np.pad(largest - mean, (0, -len(largest) % 256)).reshape(-1, 256)
    factor = np.maximum(np.abs(rest).max(1, keepdims=True) / 127, 1e-38)
    again = (np.round(rest / factor) * factor).ravel()[: len(largest)] + mean
    return (unit * np.maximum(again, 0)[:, None]).ravel()[: len(numbers)].reshape(weight.shape).astype(np.float32)


def _nearest(numbers: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest of ascending values to each number; of two as near, the one whose place is even, as eight-bit floats
    are rounded."""
    above = np.clip(np.searchsorted(values, numbers), 1, len(values) - 1)
    low, high = numbers - values[above - 1], values[above] - numbers
    take_high = (high < low) | ((high == low) & (above % 2 == 0))
    return values[above - 1 + take_high]


def _up_to_bfloat16(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least numbers of eight binary digits that are not less."""
    unit = 2.0 ** (np.floor(np.log2(numbers)) - 7)
    return np.ceil(numbers / unit) * unit
