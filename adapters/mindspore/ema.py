"""The EMA of the trained weights."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor

from dreamcore.backends import ema
from dreamcore.formats.weights import Arrays

from .buckets import Bucket, all_shapes, named_arrays, vectors


class EMA(ema.EMA[list[Tensor]]):
    """Of MindSpore's parameters: a vector for each bucket."""

    def __init__(self, buckets: Sequence[Bucket], decay: float):
        self._buckets = buckets
        super().__init__(decay)

    def copies(self) -> list[Tensor]:
        return [bucket.values() for bucket in self._buckets]

    def put(self, values: list[Tensor]) -> None:
        for bucket, value in zip(self._buckets, values, strict=True):
            bucket.write(value)

    def mix(self, averages: list[Tensor], share: float) -> list[Tensor]:
        return [mean + (b.values() - mean) * share for b, mean in zip(self._buckets, averages, strict=True)]

    def to_arrays(self, values: list[Tensor]) -> Arrays:
        return named_arrays(self._buckets, values)

    def from_arrays(self, arrays: Arrays) -> list[Tensor]:
        return vectors(self._buckets, arrays)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return all_shapes(self._buckets)
