"""The update: AdamW with its state under published names, clipping, fp16's loss scale.

MindSpore's own optimizers do not serve: `mint.optim.Adam` leaves parameters as they are without a word,
`mint.optim.AdamW` has no CPU kernel, `nn.AdamWeightDecay` lacks bias correction.  AdamW is written out instead, in
torch's formula (arXiv 1711.05101, algorithm 2) and plain operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import mindspore as ms
from mindspore import Tensor, ops

from dreamcore.backends.adamw import StoredAdamW, weight_decays
from dreamcore.backends.loss_scale import LossScale
from dreamcore.config import TrainConfig
from dreamcore.formats.optimizer_state import FIRST, SECOND
from dreamcore.formats.weights import Arrays

from .buckets import all_shapes, make_buckets, named_arrays, vectors


class Optimizer(StoredAdamW):
    """AdamW over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon and clipping are read from it.
        loss_scale: fp16's; None for other precisions.
    """

    def __init__(
        self, parameters: Mapping[str, Mapping[str, ms.Parameter]], config: TrainConfig, loss_scale: LossScale | None
    ):
        super().__init__(loss_scale)
        self.buckets = make_buckets(parameters)
        self.all = ms.ParameterTuple([p for named in parameters.values() for p in named.values()])
        self._first = [ops.zeros((sum(bucket.sizes),), ms.float32) for bucket in self.buckets]
        self._second = [ops.zeros((sum(bucket.sizes),), ms.float32) for bucket in self.buckets]
        self._betas = (config.adam_beta1, config.adam_beta2)
        self._epsilon, self._decays = config.adam_epsilon, weight_decays(config, list(parameters))
        self._max_norm = config.max_grad_norm

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
        self.steps += 1
        for i, bucket in enumerate(self.buckets):
            self._step_bucket(i, gradients[i] * factor, lr[bucket.component], self._decays[bucket.component])
        return norm

    def _step_bucket(self, i: int, gradient: Tensor, lr: float, decay: float) -> None:
        beta1, beta2 = self._betas
        self._first[i] = self._first[i] * beta1 + gradient * (1 - beta1)
        self._second[i] = self._second[i] * beta2 + ops.square(gradient) * (1 - beta2)
        root = ops.sqrt(self._second[i]) / math.sqrt(1 - beta2**self.steps)
        change = self._first[i] / (root + self._epsilon) * (lr / (1 - beta1**self.steps))
        self.buckets[i].write(self.buckets[i].values() * (1 - lr * decay) - change)

    def moments(self) -> Arrays:
        return named_arrays(self.buckets, self._first, FIRST) | named_arrays(self.buckets, self._second, SECOND)

    def put_moments(self, arrays: Arrays) -> None:
        self._first, self._second = (vectors(self.buckets, arrays, ending) for ending in (FIRST, SECOND))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return all_shapes(self.buckets)


def _sum_of_squares(vector: Tensor) -> Tensor:
    """Row by row: threads share a long sum as time allows, and its last digit would be another each time."""
    squares = ops.square(vector)
    whole = vector.size // 1024 * 1024
    rest = ops.sum(squares[whole:]) if whole < vector.size else Tensor(0.0, ms.float32)
    return ops.sum(ops.sum(squares[:whole].reshape(-1, 1024), 1)) + rest if whole else rest
