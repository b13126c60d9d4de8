"""The update: AdamW with its state under published names, clipping, fp16's loss scale, the moving average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore import average
from dreamcore.choices import weight_decays
from dreamcore.config import TrainConfig
from dreamcore.lossscale import LossScale
from dreamcore.moments import ADAMW, FIRST, SECOND, Counters, read_counters, read_moments, save_optimizer
from dreamcore.weights import Arrays

from .models import Named, published, published_shape, put

MOMENTS = {FIRST: "moment1", SECOND: "moment2"}
"""Endings of the moments' names in checkpoints, and Paddle's names."""


class Optimizer:
    """AdamW over the trained parameters of each component: PyTorch's formula, which Paddle's kernel computes too.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon and clipping are read from it.
        loss_scale: fp16's dynamic loss scale; None for other precisions.
    """

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, loss_scale: LossScale | None):
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = list(self.named.values())
        self.loss_scale = loss_scale
        self._max_norm = config.max_grad_norm
        self._betas = {"beta1": config.adam_beta1, "beta2": config.adam_beta2}
        decays = weight_decays(config, list(parameters))
        options = {"epsilon": config.adam_epsilon, **self._betas}
        self._adamw = {
            component: paddle.optimizer.AdamW(
                0.0, parameters=list(named.values()), weight_decay=decays[component], **options
            )
            for component, named in parameters.items()
        }
        self._steps = 0

    @paddle.no_grad()
    def step(self, lr: Mapping[str, float]) -> paddle.Tensor:
        """Clip and update from the gradients, then free them; returns their norm [], on the device."""
        gradients = [p.grad for p in self.all if p.grad is not None]
        norm = paddle.stack([g.square().sum() for g in gradients]).sum().sqrt()
        overflow = False
        if self.loss_scale:
            norm = norm / self.loss_scale.scale
            overflow = not np.isfinite(float(norm))
        if not overflow:
            self._shrink(gradients, norm)
            for component, adamw in self._adamw.items():
                adamw.set_lr(lr[component])
                adamw.step()
            self._steps += 1
        if self.loss_scale:
            self.loss_scale.update(overflow=overflow)
        for parameter in self.all:
            parameter.clear_gradient(set_to_zero=False)
        return norm

    def _shrink(self, gradients: list[paddle.Tensor], norm: paddle.Tensor) -> None:
        """Take the loss scale off the gradients, and scale them down to the largest norm allowed."""
        if not self._max_norm and not self.loss_scale:
            return
        factor = paddle.ones([])
        if self._max_norm:
            factor = (self._max_norm / (norm + 1e-6)).clip(max=1.0)
        if self.loss_scale:
            factor = factor / self.loss_scale.scale
        for gradient in gradients:
            gradient.multiply_(factor)

    def save(self, folder: Path) -> None:
        """Write the moments and the counters."""
        state: dict[str, Any] = {}
        for adamw in self._adamw.values():
            state |= adamw.state_dict()
        arrays = {
            name + ending: published(name, state[f"{p.name}_{paddles}_0"])
            for name, p in self.named.items()
            for ending, paddles in MOMENTS.items()
            if self._steps
        }
        save_optimizer(folder, arrays, Counters(ADAMW, self._steps, asdict(self.loss_scale) if self.loss_scale else {}))

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            ConfigError: the state of another optimizer.
            RunError: moments that are missing, left over or of another shape.
        """
        counters = read_counters(folder)
        arrays = read_moments(folder, {n: published_shape(n, p) for n, p in self.named.items()}, counters)
        self._steps = counters.step
        if arrays:
            self._put_moments(arrays)
        if self.loss_scale and counters.scaler:
            self.loss_scale = LossScale(**counters.scaler)

    def _put_moments(self, arrays: Arrays) -> None:
        state: dict[str, Any] = {}
        for name, parameter in self.named.items():
            for ending, paddles in MOMENTS.items():
                value = paddle.zeros_like(parameter)
                put(name, value, arrays[name + ending])
                state[f"{parameter.name}_{paddles}_0"] = value
            for beta, value in self._betas.items():
                state[f"{parameter.name}_{beta}_pow_acc_0"] = paddle.to_tensor(_power(value, self._steps + 1))
        for adamw in self._adamw.values():
            adamw.set_state_dict(state)


class MovingAverage(average.MovingAverage[dict[str, paddle.Tensor]]):
    """Of Paddle's parameters."""

    def __init__(self, named: Named, decay: float):
        self._named = named
        super().__init__(decay)

    def copies(self) -> dict[str, paddle.Tensor]:
        return {name: p.detach().clone() for name, p in self._named.items()}

    @paddle.no_grad()
    def put(self, values: dict[str, paddle.Tensor]) -> None:
        for name, parameter in self._named.items():
            parameter.set_value(values[name])

    @paddle.no_grad()
    def mix(self, averages: dict[str, paddle.Tensor], share: float) -> dict[str, paddle.Tensor]:
        for name, mean in averages.items():
            mean.lerp_(self._named[name].detach(), share)
        return averages

    def to_arrays(self, values: dict[str, paddle.Tensor]) -> Arrays:
        return {name: published(name, value) for name, value in values.items()}

    def from_arrays(self, arrays: Arrays) -> dict[str, paddle.Tensor]:
        made = self.copies()
        for name, value in made.items():
            put(name, value, arrays[name])
        return made

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: published_shape(name, p) for name, p in self._named.items()}


def _power(beta: float, exponent: int) -> NDArray[np.float32]:
    """[1], multiplied up in float32 update by update, as Paddle keeps it: so a resumed run goes on bit for bit."""
    return np.multiply.accumulate(np.full(exponent, beta, np.float32))[-1:]
