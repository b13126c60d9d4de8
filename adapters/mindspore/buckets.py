"""Parameters taken together as long vectors, for the work between backward and the next forward.

An operation in MindSpore costs the same small time for a bias of 32 numbers as for a matrix; over vectors of many
parameters that cost is paid once, and so is that of a message to the other processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint
from numpy.typing import NDArray

from .models import Weights

BUCKET_ELEMENTS = 16 * 2**20
"""64 MiB in float32: what the update needs beside weights, gradients and moments is a few times as much."""


@dataclass(frozen=True)
class Bucket:
    """Parameters of one component, by published name."""

    component: str
    named: Weights

    @property
    def sizes(self) -> list[int]:
        return [parameter.size for parameter in self.named.values()]

    def values(self) -> Tensor:
        """A copy of the parameters [n]."""
        return flatten(list(self.named.values()))

    def write(self, values: Tensor) -> None:
        """Put a vector [n] into the parameters."""
        for parameter, piece in zip(self.named.values(), mint.split(values, self.sizes), strict=True):
            parameter.copy_(piece.reshape(parameter.shape))

    def arrays(self, values: Tensor) -> dict[str, NDArray[np.float32]]:
        """A vector [n], cut into arrays by the parameters' names and shapes."""
        pieces = np.split(values.asnumpy(), np.cumsum(self.sizes)[:-1])
        return {n: a.reshape(p.shape) for (n, p), a in zip(self.named.items(), pieces, strict=True)}

    def vector(self, arrays: Mapping[str, NDArray[np.float32]]) -> Tensor:
        """The vector [n] of arrays by name."""
        return Tensor(np.concatenate([arrays[name].reshape(-1) for name in self.named]).astype(np.float32))


def make_buckets(parameters: Mapping[str, Weights], limit: int = BUCKET_ELEMENTS) -> list[Bucket]:
    """Distribute each component's parameters, in order, over buckets of about `limit` elements."""
    buckets: list[Bucket] = []
    for component, named in parameters.items():
        some: Weights = {}
        for name, parameter in named.items():
            some[name] = parameter
            if sum(p.size for p in some.values()) >= limit:
                buckets.append(Bucket(component, some))
                some = {}
        if some:
            buckets.append(Bucket(component, some))
    return buckets


def flatten_all(buckets: Sequence[Bucket], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors, one for each parameter of all buckets in order, as one vector for each bucket."""
    ends = np.cumsum([len(bucket.named) for bucket in buckets])
    return [flatten(tensors[end - len(b.named) : end]) for b, end in zip(buckets, ends, strict=True)]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other as a vector in float32."""
    vector = mint.cat([tensor.reshape(-1) for tensor in tensors])
    return vector if vector.dtype == ms.float32 else vector.astype(ms.float32)
