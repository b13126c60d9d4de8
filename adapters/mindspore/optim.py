"""The update: core's rules over MindSpore's parameters, clipping, fp16's loss scale.

MindSpore's own optimizers do not serve: `mint.optim.Adam` leaves parameters as they are without a word,
`mint.optim.AdamW` has no CPU kernel, `nn.AdamWeightDecay` lacks bias correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from dreamcore.backends.loss_scale import LossScale
from dreamcore.backends.optimizers import StoredOptimizer, Updates, rule_for, weight_decays
from dreamcore.config import TrainConfig
from dreamcore.config.optimizers import name_of
from dreamcore.formats.weights import Arrays

from .buckets import Bucket, all_shapes, make_buckets, named_arrays


class Optimizer(StoredOptimizer):
    """The optimizer of the settings over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: the optimizer, its numbers and clipping are read from it.
        loss_scale: fp16's; None for other precisions.
    """

    def __init__(
        self, parameters: Mapping[str, Mapping[str, ms.Parameter]], config: TrainConfig, loss_scale: LossScale | None
    ):
        super().__init__(rule_for(config), name_of(config), loss_scale)
        self.buckets = make_buckets(parameters) if self.rule.elementwise else make_buckets(parameters, 1)
        self.all = ms.ParameterTuple([p for named in parameters.values() for p in named.values()])
        weights = [_Weight(bucket, whole=self.rule.elementwise) for bucket in self.buckets]
        self._updates: Updates[Tensor] = Updates(self.rule, LIBRARY, weights, weight_decays(config, list(parameters)))
        self._max_norm = config.max_grad_norm

    def step(self, gradients: Sequence[Tensor], lr: Mapping[str, float]) -> Tensor:
        """Clip and update from the gradients, a vector for each bucket; returns their norm [] before clipping.

        An update in fp16 whose gradients have overflowed is skipped; its norm is not finite.
        """
        scale = self.loss_scale.scale if self.loss_scale else 1.0
        norm = ops.sqrt(sum(_total(ops.square(g)) for g in gradients)) / scale
        if self.loss_scale:
            overflow = not math.isfinite(float(norm))
            self.loss_scale.update(overflow=overflow)
            if overflow:
                return norm
        factor: Tensor | float = 1.0 / scale
        if self._max_norm > 0:
            factor = ops.minimum(self._max_norm / (norm + 1e-6), Tensor(1.0, ms.float32)) * factor
        given = (g.reshape(w.shape) * factor for g, w in zip(gradients, self._updates.weights, strict=True))
        self._updates.step(list(given), lr)
        return norm

    def judged(self) -> AbstractContextManager[None]:
        return self._updates.judged()

    def arrays(self) -> Arrays:
        found: Arrays = {}
        for bucket, kept in zip(self.buckets, self._updates.kept(), strict=True):
            for slot, value in kept.items():
                if self.rule.elementwise:
                    found |= named_arrays([bucket], [value], f".{slot}")
                else:
                    found[f"{next(iter(bucket.named))}.{slot}"] = value.asnumpy()
        return found

    def put_arrays(self, arrays: Arrays) -> None:
        self._updates.restore([self._kept(bucket, arrays) for bucket in self.buckets])

    def _kept(self, bucket: Bucket, arrays: Arrays) -> dict[str, Tensor]:
        first = next(iter(bucket.named))
        slots = [name.removeprefix(f"{first}.") for name in arrays if name.rpartition(".")[0] == first]
        if not self.rule.elementwise:
            return {slot: Tensor(np.array(arrays[f"{first}.{slot}"], np.float32)) for slot in slots}
        return {s: bucket.vector({name: arrays[f"{name}.{s}"] for name in bucket.named}) for s in slots}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return all_shapes(self.buckets)


class _Weight:
    """A bucket as a rule sees it: whole, as a vector, or its one parameter in its own shape."""

    def __init__(self, bucket: Bucket, *, whole: bool):
        self._bucket, self.component, self.name = bucket, bucket.component, next(iter(bucket.named))
        self.shape = (sum(bucket.sizes),) if whole else tuple(bucket.named[self.name].shape)

    def get(self) -> Tensor:
        return self._bucket.values().reshape(self.shape)

    def put(self, value: Tensor) -> None:
        self._bucket.write(value.reshape(-1))


def _total(tensor: Tensor) -> Tensor:
    """The sum, row by row: threads share a long sum as time allows, and its last digit would be another each time."""
    vector = tensor.reshape(-1)
    whole = vector.size // 1024 * 1024
    rest = ops.sum(vector[whole:]) if whole < vector.size else Tensor(0.0, ms.float32)
    return ops.sum(ops.sum(vector[:whole].reshape(-1, 1024), 1)) + rest if whole else rest


LIBRARY = SimpleNamespace(
    **{name: getattr(ops, name) for name in ("sqrt", "sign", "abs", "mean", "maximum", "minimum", "where")},
    zeros_like=ops.zeros_like,
    sum=_total,
)
"""What rules call; sums are always the same."""
