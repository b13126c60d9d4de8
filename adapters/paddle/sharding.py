"""What goes from rank to rank where the optimizer's state is shared out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import paddle
import paddle.distributed as dist

from dreamcore.backends.bucketing import BUCKET_BYTES, in_buckets
from dreamcore.backends.launching import all_alive


class Wires:
    """Of `backends.sharding`."""

    def add_up(self, shares: Sequence[Sequence[paddle.Tensor]]) -> None:
        for owner, weights in enumerate(shares):
            self._add_up(weights, owner)

    @paddle.no_grad()
    def _add_up(self, weights: Sequence[paddle.Tensor], owner: int) -> None:
        for bucket in _buckets([p.grad for p in weights if p.grad is not None]):
            flat = _joined(bucket)
            with all_alive():
                dist.reduce(flat, owner)
            if owner == dist.get_rank():
                _cut(flat, bucket)
        if owner != dist.get_rank():
            for weight in weights:
                weight.clear_gradient(set_to_zero=False)

    @paddle.no_grad()
    def hand_out(self, weights: Sequence[paddle.Tensor], owner: int) -> None:
        for bucket in _buckets(weights):
            flat = _joined(bucket)
            with all_alive():
                dist.broadcast(flat, owner)
            if owner != dist.get_rank():
                _cut(flat, bucket)

    def norm(self, own: paddle.Tensor) -> paddle.Tensor:
        squared = own.cast("float64").square().reshape([1])
        with all_alive():
            dist.all_reduce(squared)
        return squared.sqrt().cast(own.dtype).reshape(own.shape)


def _buckets(tensors: Sequence[paddle.Tensor]) -> Iterator[list[paddle.Tensor]]:
    return in_buckets(tensors, lambda t: t.size * t.element_size(), BUCKET_BYTES)


def _joined(bucket: Sequence[paddle.Tensor]) -> paddle.Tensor:
    return paddle.concat([t.flatten() for t in bucket])


def _cut(flat: paddle.Tensor, bucket: Sequence[paddle.Tensor]) -> None:
    """`_joined` undone."""
    for tensor, part in zip(bucket, paddle.split(flat, [t.size for t in bucket]), strict=True):
        paddle.assign(part.reshape(tensor.shape), tensor)
