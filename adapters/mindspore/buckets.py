"""Parameters taken together as long vectors, for the work between backward and the next forward.

An operation in MindSpore costs the same small time for a bias of 32 numbers as for a matrix; over vectors of many
parameters that cost is paid once, and so is that of a message to the other processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint
from numpy.typing import NDArray

from dreamcore.backends.bucketing import BUCKET_BYTES, in_buckets
from dreamcore.formats.weights import Arrays

from .models import Weights, shapes

BUCKET_ELEMENTS = BUCKET_BYTES // 4
"""In float32: what the update needs beside weights, gradients and moments is a few times as much."""


@dataclass(frozen=True)
class Bucket:
    """Parameters of one component, by published name."""

    component: str
    named: Weights

    @cached_property
    def sizes(self) -> list[int]:
        return [parameter.size for parameter in self.named.values()]

    def values(self) -> Tensor:
        """A copy of the parameters [n]."""
        return flatten(list(self.named.values()))

    def write(self, values: Tensor) -> None:
        """Put a vector [n] into the parameters."""
        for parameter, piece in zip(self.named.values(), mint.split(values, self.sizes), strict=True):
            parameter.copy_(piece if parameter.ndim == 1 else piece.reshape(parameter.shape))

    def arrays(self, values: Tensor) -> dict[str, NDArray[np.float32]]:
        """A vector [n], cut into arrays by the parameters' names and shapes."""
        pieces = np.split(values.asnumpy(), np.cumsum(self.sizes)[:-1])
        return {n: a.reshape(p.shape) for (n, p), a in zip(self.named.items(), pieces, strict=True)}

    def vector(self, arrays: Mapping[str, NDArray[np.float32]]) -> Tensor:
        """The vector [n] of arrays by name."""
        return Tensor(np.concatenate([arrays[name].reshape(-1) for name in self.named]).astype(np.float32))


def make_buckets(parameters: Mapping[str, Mapping[str, ms.Parameter]], limit: int = BUCKET_ELEMENTS) -> list[Bucket]:
    """Distribute each component's parameters, in order, over buckets of about `limit` elements."""
    return [
        Bucket(component, dict(items))
        for component, named in parameters.items()
        for items in in_buckets(named.items(), lambda item: int(item[1].size), limit)
    ]


def flatten_all(buckets: Sequence[Bucket], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors, one for each parameter of all buckets in order, as one vector for each bucket."""
    ends = np.cumsum([len(bucket.named) for bucket in buckets])
    return [flatten(tensors[end - len(b.named) : end]) for b, end in zip(buckets, ends, strict=True)]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other as a vector in float32."""
    vector = mint.cat([tensor if tensor.ndim == 1 else tensor.reshape(-1) for tensor in tensors])  # each a launch
    return vector if vector.dtype == ms.float32 else vector.astype(ms.float32)


def named_arrays(buckets: Sequence[Bucket], given: Sequence[Tensor], ending: str = "") -> Arrays:
    """Vectors, one for each bucket, as arrays under the parameters' names and an ending."""
    pairs = (item for bucket, vector in zip(buckets, given, strict=True) for item in bucket.arrays(vector).items())
    return {name + ending: array for name, array in pairs}


def vectors(buckets: Sequence[Bucket], arrays: Arrays, ending: str = "") -> list[Tensor]:
    """`named_arrays` undone."""
    return [bucket.vector({name: arrays[name + ending] for name in bucket.named}) for bucket in buckets]


def all_shapes(buckets: Sequence[Bucket]) -> dict[str, tuple[int, ...]]:
    return {name: shape for bucket in buckets for name, shape in shapes(bucket.named).items()}
