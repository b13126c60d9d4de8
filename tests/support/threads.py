"""Ranks that are threads of this process, and what they tell each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Together:
    """What ranks in threads tell each other."""

    def __init__(self, size: int):
        self.size, self.said = size, dict[int, Any]()
        self.gate = threading.Barrier(size, timeout=10)


class Rank:
    """One of them, as a `World`."""

    asks_every = local_rank = 0

    def __init__(self, rank: int, together: Together):
        self.rank, self.size, self._all = rank, together.size, together

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        self._all.said[self.rank] = values.copy()
        self._all.gate.wait()
        everyone = [self._all.said[rank] for rank in range(self.size)]
        self._all.gate.wait()
        return everyone

    def broadcast(self, value: str) -> str:
        self._all.said[self.rank] = value
        self._all.gate.wait()
        said: str = self._all.said[0]
        self._all.gate.wait()
        return said

    def barrier(self) -> None:
        self._all.gate.wait()


def each(size: int, work: Callable[[Rank], T]) -> list[T]:
    """What each of so many ranks returns."""
    together = Together(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(Rank(rank, together)), range(size)))
