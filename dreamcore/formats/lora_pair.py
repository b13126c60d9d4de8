"""A layer's factors, cut into those of the parts of its weight and stacked from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pair:
    """One layer's factors in PyTorch's layout, and the scale alpha/rank that is not in them yet.

    Args:
        down: [rank, in], or [rank, in, kh, kw] of a convolution.
        up: [out, rank], or [out, rank, 1, 1].
        magnitude: [out] the length that each row of the changed weight has (DoRA); None: whatever it comes to.
    """

    down: NDArray[Any]
    up: NDArray[Any]
    scale: float
    magnitude: NDArray[Any] | None = None

    @property
    def rank(self) -> int:
        return len(self.down)


Pairs = dict[tuple[str, str], Pair]
"""By component and layer, as published."""


def fold(pair: Pair) -> Pair:
    """The same product with the scale in the up matrix."""
    return pair if pair.scale == 1 else replace(pair, up=pair.up * pair.up.dtype.type(pair.scale), scale=1.0)


def stack(pairs: Sequence[Pair | None], outputs: Sequence[int]) -> Pair:
    """One pair of factors for layers whose weights lie below each other in one, exactly.

    Factors that share a down matrix keep their rank; others are stacked, each with columns of its own.  Magnitudes are
    there where all layers have one.

    Args:
        pairs: of each layer, the first on top; None: a layer that stays as it is; one at least is there.
        outputs: how many each layer has.
    """
    there = [pair for pair in pairs if pair is not None]
    if len({pair.scale for pair in there}) > 1:
        return stack([None if pair is None else fold(pair) for pair in pairs], outputs)
    lengths = [pair.magnitude for pair in pairs if pair is not None and pair.magnitude is not None]
    magnitude = np.concatenate(lengths) if len(lengths) == len(pairs) else None
    down, scale = there[0].down, there[0].scale
    kind = np.result_type(*(pair.up for pair in there))
    if all(np.array_equal(pair.down, down) for pair in there):
        blank = [np.zeros((rows, len(down)), kind) for rows in outputs]
        ups = [empty if pair is None else pair.up for pair, empty in zip(pairs, blank, strict=True)]
        return Pair(down, np.concatenate(ups), scale, magnitude)
    down = np.concatenate([pair.down for pair in there])
    up = np.zeros((sum(outputs), len(down)), kind)
    row = column = 0
    for pair, rows in zip(pairs, outputs, strict=True):
        if pair is not None:
            up[row : row + rows, column : column + pair.rank] = pair.up
            column += pair.rank
        row += rows
    return Pair(down, up, scale, magnitude)


def cut(pair: Pair, count: int) -> list[Pair] | None:
    """Factors of one weight as those of the weights that lie below each other in it; the inverse of `stack`.

    Each has the down matrix and its rows of the up matrix; of factors that were stacked, those that count.

    Args:
        count: 3: queries, keys and values, of as many outputs each; 4: behind them a wider one, Flux's `proj_mlp`, and
            they are as wide as the inputs.

    Returns:
        None where the outputs do not split so.
    """
    inputs, outputs = pair.down.shape[1], len(pair.up)
    width = inputs if count > 3 else outputs // count
    if outputs <= width * (count - 1) or (count == 3 and outputs % 3):
        return None
    places = [width * number for number in range(1, count)]
    ups = np.split(pair.up, places)
    lengths = [None] * count if pair.magnitude is None else np.split(pair.magnitude, places)
    parts = zip(_stacked(ups, pair.rank), ups, lengths, strict=True)
    return [Pair(pair.down[own], up[:, own], pair.scale, length) for own, up, length in parts]


def _stacked(ups: Sequence[NDArray[Any]], rank: int) -> list[slice]:
    """The columns of its own that each part has, where they follow each other; otherwise all, for each."""
    used = [np.flatnonzero(up.reshape(len(up), rank, -1).any((0, 2))) for up in ups]
    whole = [slice(None)] * len(ups)
    each, rest = divmod(rank, len(ups))
    if rest or any(len(columns) == 0 for columns in used):
        return whole
    own = [slice(number * each, (number + 1) * each) for number in range(len(ups))]
    fits = all(part.start <= columns[0] and columns[-1] < part.stop for part, columns in zip(own, used, strict=True))
    return own if fits else whole


def reshaped(pair: Pair, shape: tuple[int, ...]) -> Pair | None:
    """Factors with the dimensions of a weight, for a convolution of size 1 is written as a Linear layer too; None:
    they do not fit it."""
    kernel, theirs = shape[2:], pair.down.shape[2:]
    if pair.down.ndim == 2 and pair.down.shape[1] == math.prod(shape[1:]):  # LoHa's and LoKr's
        theirs = kernel
        pair = replace(pair, down=pair.down.reshape(-1, *shape[1:]))
    if (len(pair.up), *pair.down.shape[1:2]) != shape[:2] or math.prod(pair.up.shape[2:]) != 1:
        return None
    if kernel != theirs and math.prod((*kernel, *theirs)) != 1:
        return None
    ones = (1,) * len(kernel)
    return replace(pair, down=pair.down.reshape(-1, *shape[1:]), up=pair.up.reshape(shape[0], -1, *ones))
