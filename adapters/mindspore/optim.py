"""The update: AdamW with its state under published names, clipping, fp16's loss scale, the moving average.

MindSpore's own optimizers do not serve: `mint.optim.Adam` leaves parameters as they are without a word,
`mint.optim.AdamW` has no CPU kernel, `nn.AdamWeightDecay` lacks bias correction.  AdamW is written out instead, in
torch's formula (arXiv 1711.05101, algorithm 2) and plain operations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, ops
from safetensors import safe_open

from dreamcore.checkpoint import EMA_FILE, OPTIMIZER_FILE
from dreamcore.choices import weight_decays
from dreamcore.config import TrainConfig
from dreamcore.errors import RunError
from dreamcore.lossscale import LossScale
from dreamcore.weights import Arrays, read_exactly, write_safetensors

from .buckets import Bucket, make_buckets
from .models import Weights, shapes

FIRST, SECOND = ".exp_avg", ".exp_avg_sq"


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
        scaler = asdict(self.loss_scale) if self.loss_scale else {}
        counters = {"optimizer": "adamw", "step": self._steps, "scaler": scaler}
        moments = _named(self.buckets, self._first, FIRST) | _named(self.buckets, self._second, SECOND)
        write_safetensors(folder / OPTIMIZER_FILE, moments, {"counters": json.dumps(counters)})

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            RunError: moments that are missing, left over or of another shape.
        """
        file = folder / OPTIMIZER_FILE
        with safe_open(file, "np") as opened:
            counters = json.loads(opened.metadata()["counters"])
        if counters["optimizer"] != "adamw":
            raise RunError(f"{file}: the state of {counters['optimizer']}; the MindSpore backend has adamw only")
        self._first, self._second = _read_vectors(self.buckets, file, (FIRST, SECOND))
        self._steps = int(counters["step"])
        if self.loss_scale and counters.get("scaler"):
            self.loss_scale = LossScale(**counters["scaler"])


class MovingAverage:
    """Exponential moving average of the trained parameters, warmed up as min(decay, (1 + n) / (10 + n))."""

    def __init__(self, buckets: Sequence[Bucket], decay: float):
        self._buckets, self._decay, self._updates = buckets, decay, 0
        self._averages = [bucket.values() for bucket in buckets]

    def update(self) -> None:
        """Take in the parameters after an update."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for i, bucket in enumerate(self._buckets):
            self._averages[i] = self._averages[i] + (bucket.values() - self._averages[i]) * (1 - decay)
        self._updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the parameters hold their averages for a while."""
        held = [bucket.values() for bucket in self._buckets]
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(held)

    def save(self, folder: Path) -> None:
        """Write the averages."""
        write_safetensors(folder / EMA_FILE, _named(self._buckets, self._averages), {"updates": str(self._updates)})

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            RunError: averages that do not fit.
        """
        file = folder / EMA_FILE
        with safe_open(file, "np") as opened:
            self._updates = int(opened.metadata()["updates"])
        (self._averages,) = _read_vectors(self._buckets, file, ("",))

    def _put(self, values: Sequence[Tensor]) -> None:
        for bucket, value in zip(self._buckets, values, strict=True):
            bucket.write(value)


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


def _read_vectors(buckets: Sequence[Bucket], file: Path, endings: Sequence[str]) -> list[list[Tensor]]:
    """For each ending a vector for each bucket.

    Raises:
        RunError: arrays that are missing, left over or of another shape.
    """
    wanted = {n + ending: p for bucket in buckets for n, p in bucket.named.items() for ending in endings}
    arrays = read_exactly(file, shapes(wanted), "what this run trains")
    return [[bucket.vector({n: arrays[n + ending] for n in bucket.named}) for bucket in buckets] for ending in endings]
