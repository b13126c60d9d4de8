"""The update: AdamW with its state under published names, clipping, fp16's loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore.backends.adamw import StoredAdamW, weight_decays
from dreamcore.backends.loss_scale import LossScale
from dreamcore.config import TrainConfig
from dreamcore.formats.optimizer_state import FIRST, SECOND
from dreamcore.formats.weights import Arrays

from .models import Named, published, put, shapes

MOMENTS = {FIRST: "moment1", SECOND: "moment2"}
"""Endings of the moments' names in checkpoints, and Paddle's names."""


class Optimizer(StoredAdamW):
    """AdamW over the trained parameters of each component: PyTorch's formula, which Paddle's kernel computes too.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon and clipping are read from it.
        loss_scale: fp16's dynamic loss scale; None for other precisions.
    """

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, loss_scale: LossScale | None):
        super().__init__(loss_scale)
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = list(self.named.values())
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
            self.steps += 1
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

    def moments(self) -> Arrays:
        state: dict[str, Any] = {}
        for adamw in self._adamw.values():
            state |= adamw.state_dict()
        return {
            name + ending: published(name, state[f"{p.name}_{paddles}_0"])
            for name, p in self.named.items()
            for ending, paddles in MOMENTS.items()
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes(self.named)

    def put_moments(self, arrays: Arrays) -> None:
        state: dict[str, Any] = {}
        for name, parameter in self.named.items():
            for ending, paddles in MOMENTS.items():
                value = paddle.zeros_like(parameter)
                put(name, value, arrays[name + ending])
                state[f"{parameter.name}_{paddles}_0"] = value
            for beta, value in self._betas.items():
                state[f"{parameter.name}_{beta}_pow_acc_0"] = paddle.to_tensor(_power(value, self.steps + 1))
        for adamw in self._adamw.values():
            adamw.set_state_dict(state)


def _power(beta: float, exponent: int) -> NDArray[np.float32]:
    """[1], multiplied up in float32 update by update, as Paddle keeps it: so a resumed run goes on bit for bit."""
    return np.multiply.accumulate(np.full(exponent, beta, np.float32))[-1:]
