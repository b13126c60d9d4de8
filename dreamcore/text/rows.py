"""Embeddings of prompts, kept by number and put together to batches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .conditions import Conditioning

T = TypeVar("T")
"""A backend's tensors."""
ON_DEVICE = 2**30
"""Bytes of the embeddings of numbered prompts that may lie on the device: of 128 prompts for Flux, of 4,500 for Stable
Diffusion 1."""


class Tensors(ABC, Generic[T]):
    """What a backend does with its tensors."""

    @abstractmethod
    def to_device(self, array: NDArray[Any]) -> T:
        """An array as a tensor on the device."""

    @abstractmethod
    def to_host(self, tensor: T) -> NDArray[np.float32]:
        """A tensor as an array in float32."""

    @abstractmethod
    def concat(self, tensors: Sequence[T], axis: int) -> T:
        """Tensors side by side along a dimension."""

    @abstractmethod
    def rows(self, tensor: T, rows: NDArray[np.int64]) -> T:
        """Some rows of a tensor."""


class Rows(Generic[T]):
    """Embeddings of prompts by number, each in a place of its own: on the device as long as the budget lasts, then in
    the host's memory, from which a batch's come when it needs them.

    Args:
        hooks: the backend's.
    """

    def __init__(self, hooks: Tensors[T]):
        self._hooks, self._left = hooks, ON_DEVICE
        self._rows: list[Conditioning[Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, row: Conditioning[T]) -> None:
        """Take in the next prompt's, of one row."""
        tensors: list[Any] = [tensor for tensor in row.tensors if tensor is not None]
        self._left -= sum(4 * math.prod(tensor.shape) for tensor in tensors)
        self._rows.append(row if self._left >= 0 else row.each(self._hooks.to_host))  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Conditioning[T]:
        """One row."""
        row = self._rows[number]
        return row.each(lambda t: self._hooks.to_device(t) if isinstance(t, np.ndarray) else t)

    def take(self, number: int) -> Conditioning[T]:
        """One row, which is not held any more."""
        found, self._rows[number] = self[number], Conditioning()
        return found

    def rows(self, numbers: NDArray[np.int64]) -> Conditioning[T]:
        """A row for each."""
        return below([self[int(number)] for number in numbers], self._hooks)


def below(conditions: Sequence[Conditioning[T]], hooks: Tensors[T]) -> Conditioning[T]:
    """The rows of several, one below the other; words filled up with zeros to the longest."""
    embeds: list[Any] = [c.prompt_embeds for c in conditions if c.prompt_embeds is not None]
    tokens = max((e.shape[1] for e in embeds), default=0)
    for place, short in enumerate(embeds):
        if short.shape[1] < tokens:
            zeros = np.zeros((len(short), tokens - short.shape[1], short.shape[2]), np.float32)
            embeds[place] = hooks.concat([short, hooks.to_device(zeros)], 1)
    others = ([c.tensors[i] for c in conditions] for i in (1, 2))
    pooled, layers = (
        hooks.concat(some, 0) if (some := [t for t in all_ if t is not None]) else None for all_ in others
    )
    lengths = [c.lengths for c in conditions if c.lengths is not None]
    words: T | None = hooks.concat(embeds, 0) if embeds else None
    return Conditioning(words, pooled, layers, np.concatenate(lengths) if lengths else None)
