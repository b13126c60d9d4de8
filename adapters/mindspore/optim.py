"""The update: AdamW with its state under published names, clipping, fp16's loss scale, the moving average.

MindSpore's own optimizers do not serve: `mint.optim.Adam` leaves parameters as they are without a word,
`mint.optim.AdamW` has no CPU kernel, `nn.AdamWeightDecay` lacks bias correction.  AdamW is written out instead, in
torch's formula (arXiv 1711.05101, algorithm 2) and plain operations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, ops
from safetensors import safe_open

from dreamcore.checkpoint import EMA_FILE, OPTIMIZER_FILE
from dreamcore.config import TrainConfig
from dreamcore.errors import RunError

from .models import Weights, restore_tensors, save_tensors

FIRST, SECOND = ".exp_avg", ".exp_avg_sq"


@dataclass
class LossScale:
    """fp16's dynamic loss scale: halved by an overflow, whose update is skipped; doubled after a long run without.

    Its counters are torch's GradScaler's, so that they travel in checkpoints.
    """

    scale: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    _growth_tracker: int = 0

    def update(self, *, overflow: bool) -> None:
        """Take in how an update ended."""
        self._growth_tracker = 0 if overflow else self._growth_tracker + 1
        if overflow:
            self.scale *= self.backoff_factor
        elif self._growth_tracker == self.growth_interval:
            self.scale *= self.growth_factor
            self._growth_tracker = 0


class Optimizer:
    """AdamW over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon and clipping are read from it.
        loss_scale: fp16's; None for other precisions.
        compile: compiles the update in graph mode.
    """

    def __init__(
        self,
        parameters: Mapping[str, Weights],
        config: TrainConfig,
        loss_scale: LossScale | None,
        compile: Callable[[Any], Any] = lambda function: function,
    ):
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = ms.ParameterTuple(list(self.named.values()))
        self.loss_scale = loss_scale
        self._components = [component for component, named in parameters.items() for _ in named]
        self._moments = {n + m: _zeros(p, n + m) for m in (FIRST, SECOND) for n, p in self.named.items()}
        moments = list(self._moments.values())
        self._first, self._second = moments[: len(self.all)], moments[len(self.all) :]
        self._betas = (config.adam_beta1, config.adam_beta2)
        self._epsilon, self._decay = config.adam_epsilon, config.adam_weight_decay
        self._max_norm = config.max_grad_norm
        self._steps = 0
        self._apply = compile(self._apply_to_all)

    def step(self, gradients: Sequence[Tensor], lr: Mapping[str, float]) -> Tensor:
        """Clip and update; returns the gradients' norm [] before clipping, on the device.

        An update with fp16 whose gradients have overflowed is skipped; its norm is not finite.
        """
        scale = self.loss_scale.scale if self.loss_scale else 1.0
        norm = ops.sqrt(sum(ops.sum(ops.square(g.astype(ms.float32))) for g in gradients)) / scale
        if self.loss_scale:
            overflow = not math.isfinite(float(norm))
            self.loss_scale.update(overflow=overflow)
            if overflow:
                return norm
        factor = 1.0 / scale
        if self._max_norm > 0:
            factor = ops.minimum(self._max_norm / (norm + 1e-6), _scalar(1.0)) * factor
        self._steps += 1
        corrections = [1 - beta**self._steps for beta in self._betas]
        rates = {c: _scalar(lr[c]) for c in dict.fromkeys(self._components)}
        sizes = {c: _scalar(lr[c] / corrections[0]) for c in rates}
        self._apply(
            tuple(gradients),
            _scalar(factor),
            tuple(rates[c] for c in self._components),
            tuple(sizes[c] for c in self._components),
            _scalar(math.sqrt(corrections[1])),
        )
        return norm

    def _apply_to_all(
        self,
        gradients: tuple[Tensor, ...],
        factor: Tensor,
        rates: tuple[Tensor, ...],
        sizes: tuple[Tensor, ...],
        root_correction: Tensor,
    ) -> None:
        """AdamW.  `factor` clips and unscales the gradients; `sizes` are lr / (1 − β₁ⁿ), `root_correction` √(1 − β₂ⁿ)."""
        beta1, beta2 = self._betas
        for i, parameter in enumerate(self.all):
            gradient = gradients[i].astype(ms.float32) * factor
            first = self._first[i] * beta1 + gradient * (1 - beta1)
            second = self._second[i] * beta2 + ops.square(gradient) * (1 - beta2)
            denominator = ops.sqrt(second) / root_correction + self._epsilon
            decayed = parameter * (1.0 - rates[i] * self._decay)
            ops.assign(self._first[i], first)
            ops.assign(self._second[i], second)
            ops.assign(parameter, decayed - sizes[i] * (first / denominator))

    def save(self, folder: Path) -> None:
        """Write the moments and the counters."""
        scaler = asdict(self.loss_scale) if self.loss_scale else {}
        counters = {"optimizer": "adamw", "step": self._steps, "scaler": scaler}
        save_tensors(self._moments, folder / OPTIMIZER_FILE, counters=json.dumps(counters))

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
        restore_tensors(self._moments, file, "what this run trains")
        self._steps = int(counters["step"])
        if self.loss_scale and counters.get("scaler"):
            self.loss_scale = LossScale(**counters["scaler"])


class MovingAverage:
    """Exponential moving average of the trained parameters, warmed up as min(decay, (1 + n) / (10 + n))."""

    def __init__(self, named: Weights, decay: float):
        self._named, self._decay, self._updates = named, decay, 0
        self._averages = {name: ms.Parameter(p.value().copy(), name=f"{name}.average") for name, p in named.items()}

    def update(self) -> None:
        """Take in the parameters after an update."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, average in self._averages.items():
            ops.assign(average, average + (self._named[name] - average) * (1 - decay))
        self._updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the parameters hold their averages for a while."""
        held = {name: parameter.value().copy() for name, parameter in self._named.items()}
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(held)

    def save(self, folder: Path) -> None:
        """Write the averages."""
        save_tensors(self._averages, folder / EMA_FILE, updates=str(self._updates))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            RunError: averages that do not fit.
        """
        file = folder / EMA_FILE
        with safe_open(file, "np") as opened:
            self._updates = int(opened.metadata()["updates"])
        restore_tensors(self._averages, file, "what this run trains")

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._named.items():
            ops.assign(parameter, values[name])


def _zeros(parameter: ms.Parameter, name: str) -> ms.Parameter:
    return ms.Parameter(ops.zeros(parameter.shape, ms.float32), name=name, requires_grad=False)


def _scalar(value: float | Tensor) -> Tensor:
    """A tensor, so that a compiled step does not take every new number for a new program."""
    return value if isinstance(value, Tensor) else Tensor(value, ms.float32)
