"""The update: AdamW with its state under published names, clipping, fp16's loss scale, the moving average.

MindSpore's own optimizers do not serve: `mint.optim.Adam` leaves parameters as they are without a word,
`mint.optim.AdamW` has no CPU kernel, `nn.AdamWeightDecay` lacks bias correction.  AdamW is written out instead, in
torch's formula (arXiv 1711.05101, algorithm 2) and plain operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, ops

from dreamcore import average
from dreamcore.choices import weight_decays
from dreamcore.config import TrainConfig
from dreamcore.lossscale import LossScale
from dreamcore.moments import ADAMW, FIRST, SECOND, Counters, read_counters, read_moments, save_optimizer
from dreamcore.weights import Arrays

from .buckets import Bucket, make_buckets
from .models import Weights, shapes


class Optimizer:
    """AdamW over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon and clipping are read from it.
        loss_scale: fp16's; None for other precisions.
    """

    def __init__(self, parameters: Mapping[str, Weights], config: TrainConfig, loss_scale: LossScale | None):
        self.buckets = make_buckets(parameters)
        self.all = ms.ParameterTuple([p for named in parameters.values() for p in named.values()])
        self.loss_scale = loss_scale
        self._first = [ops.zeros((sum(bucket.sizes),), ms.float32) for bucket in self.buckets]
        self._second = [ops.zeros((sum(bucket.sizes),), ms.float32) for bucket in self.buckets]
        self._betas = (config.adam_beta1, config.adam_beta2)
        self._epsilon, self._decays = config.adam_epsilon, weight_decays(config, list(parameters))
        self._max_norm = config.max_grad_norm
        self._steps = 0

    def step(self, gradients: Sequence[Tensor], lr: Mapping[str, float]) -> Tensor:
        """Clip and update from the gradients, a vector for each bucket; returns their norm [] before clipping.

        An update in fp16 whose gradients have overflowed is skipped; its norm is not finite.
        """
        scale = self.loss_scale.scale if self.loss_scale else 1.0
        norm = ops.sqrt(sum(_sum_of_squares(g) for g in gradients)) / scale
        if self.loss_scale:
            overflow = not math.isfinite(float(norm))
            self.loss_scale.update(overflow=overflow)
            if overflow:
                return norm
        factor: Tensor | float = 1.0 / scale
        if self._max_norm > 0:
            factor = ops.minimum(self._max_norm / (norm + 1e-6), Tensor(1.0, ms.float32)) * factor
        self._steps += 1
        for i, bucket in enumerate(self.buckets):
            self._step_bucket(i, gradients[i] * factor, lr[bucket.component], self._decays[bucket.component])
        return norm

    def _step_bucket(self, i: int, gradient: Tensor, lr: float, decay: float) -> None:
        beta1, beta2 = self._betas
        self._first[i] = self._first[i] * beta1 + gradient * (1 - beta1)
        self._second[i] = self._second[i] * beta2 + ops.square(gradient) * (1 - beta2)
        root = ops.sqrt(self._second[i]) / math.sqrt(1 - beta2**self._steps)
        change = self._first[i] / (root + self._epsilon) * (lr / (1 - beta1**self._steps))
        self.buckets[i].write(self.buckets[i].values() * (1 - lr * decay) - change)

    def save(self, folder: Path) -> None:
        """Write the moments and the counters."""
        moments = _named(self.buckets, self._first, FIRST) | _named(self.buckets, self._second, SECOND)
        scaler = asdict(self.loss_scale) if self.loss_scale else {}
        save_optimizer(folder, moments, Counters(ADAMW, self._steps, scaler))

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            ConfigError: the state of another optimizer.
            RunError: moments that are missing, left over or of another shape.
        """
        counters = read_counters(folder)
        if arrays := read_moments(folder, _shapes(self.buckets), counters):
            self._first, self._second = (_vectors(self.buckets, arrays, ending) for ending in (FIRST, SECOND))
        self._steps = counters.step
        if self.loss_scale and counters.scaler:
            self.loss_scale = LossScale(**counters.scaler)


class MovingAverage(average.MovingAverage[list[Tensor]]):
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
        return _named(self._buckets, values)

    def from_arrays(self, arrays: Arrays) -> list[Tensor]:
        return _vectors(self._buckets, arrays)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return _shapes(self._buckets)


def _sum_of_squares(vector: Tensor) -> Tensor:
    """Row by row: threads share a long sum as time allows, and its last digit would be another each time."""
    squares = ops.square(vector)
    whole = vector.size // 1024 * 1024
    rest = ops.sum(squares[whole:]) if whole < vector.size else Tensor(0.0, ms.float32)
    return ops.sum(ops.sum(squares[:whole].reshape(-1, 1024), 1)) + rest if whole else rest


def _named(buckets: Sequence[Bucket], vectors: Sequence[Tensor], ending: str = "") -> Arrays:
    """Vectors, one for each bucket, as arrays under the parameters' names and an ending."""
    pairs = (item for bucket, vector in zip(buckets, vectors, strict=True) for item in bucket.arrays(vector).items())
    return {name + ending: array for name, array in pairs}


def _vectors(buckets: Sequence[Bucket], arrays: Arrays, ending: str = "") -> list[Tensor]:
    """`_named` undone."""
    return [bucket.vector({name: arrays[name + ending] for name in bucket.named}) for bucket in buckets]


def _shapes(buckets: Sequence[Bucket]) -> dict[str, tuple[int, ...]]:
    return {name: shape for bucket in buckets for name, shape in shapes(bucket.named).items()}
