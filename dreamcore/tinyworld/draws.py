"""Chance that is the same on every platform and NumPy: only uniform doubles of a counter-based generator are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draws:
    """The draws for one image; the same (seed, index) gives the same."""

    def __init__(self, seed: int, index: int = 0) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def whole(self, low: int, high: int) -> int:
        """A whole number, low <= n <= high."""
        return low + int(self.uniform(0, 1) * (high - low + 1))

    def choice(self, options: Sequence[T]) -> T:
        return options[self.whole(0, len(options) - 1)]
