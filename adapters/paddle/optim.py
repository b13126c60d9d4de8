"""The update: AdamW with its state under published names, clipping, fp16's loss scale, the moving average."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from safetensors import safe_open

from dreamcore.checkpoint import EMA_FILE, OPTIMIZER_FILE
from dreamcore.choices import weight_decays
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.lossscale import LossScale
from dreamcore.weights import Arrays, read_exactly, write_safetensors

from .models import Named, published, published_shape, put

MOMENTS = {"exp_avg": "moment1", "exp_avg_sq": "moment2"}
"""PyTorch's names of AdamW's moments, which checkpoints use, and Paddle's."""


class Optimizer:
    """AdamW over the trained parameters of each component: PyTorch's formula, which Paddle's kernel computes too.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon and clipping are read from it.
        scale: fp16's dynamic loss scale; None for other precisions.
    """

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, scale: LossScale | None):
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = list(self.named.values())
        self.scale = scale
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
        if self.scale:
            norm = norm / self.scale.scale
            overflow = not np.isfinite(float(norm))
        if not overflow:
            self._shrink(gradients, norm)
            for component, adamw in self._adamw.items():
                adamw.set_lr(lr[component])
                adamw.step()
            self._steps += 1
        if self.scale:
            self.scale.update(overflow=overflow)
        for parameter in self.all:
            parameter.clear_gradient(set_to_zero=False)
        return norm

    def _shrink(self, gradients: list[paddle.Tensor], norm: paddle.Tensor) -> None:
        """Take the loss scale off the gradients, and scale them down to the largest norm allowed."""
        if not self._max_norm and not self.scale:
            return
        factor = paddle.ones([])
        if self._max_norm:
            factor = (self._max_norm / (norm + 1e-6)).clip(max=1.0)
        if self.scale:
            factor = factor / self.scale.scale
        for gradient in gradients:
            gradient.multiply_(factor)

    def save(self, folder: Path) -> None:
        """Write the moments and the counters."""
        state: dict[str, Any] = {}
        for adamw in self._adamw.values():
            state |= adamw.state_dict()
        arrays = {
            f"{name}.{moment}": published(name, state[f"{p.name}_{paddles}_0"])
            for name, p in self.named.items()
            for moment, paddles in MOMENTS.items()
            if self._steps
        }
        scaler = asdict(self.scale) if self.scale else {}
        counters = {"optimizer": "adamw", "step": self._steps, "scaler": scaler}
        write_safetensors(folder / OPTIMIZER_FILE, arrays, {"counters": json.dumps(counters)})

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            ConfigError: the state of another optimizer.
            RunError: moments that are missing, left over or of another shape.
        """
        file = folder / OPTIMIZER_FILE
        counters = json.loads(_metadata(file)["counters"])
        if counters.get("optimizer") != "adamw":
            raise ConfigError(
                f"resume_from_checkpoint: {file} holds the state of {counters.get('optimizer')}, and this run's "
                "optimizer is adamw; go on with that one, or give --reset_optimizer to start the optimizer afresh"
            )
        self._steps = int(counters["step"])
        shapes = {f"{n}.{m}": published_shape(n, p) for n, p in self.named.items() for m in MOMENTS if self._steps}
        arrays = read_exactly(file, shapes, "what this run trains")
        if self._steps:
            self._put_moments(arrays)
        if self.scale and counters.get("scaler"):
            self.scale = LossScale(**counters["scaler"])

    def _put_moments(self, arrays: Arrays) -> None:
        state: dict[str, Any] = {}
        for name, parameter in self.named.items():
            for moment, paddles in MOMENTS.items():
                value = paddle.zeros_like(parameter)
                put(name, value, arrays[f"{name}.{moment}"])
                state[f"{parameter.name}_{paddles}_0"] = value
            for beta, value in self._betas.items():
                state[f"{parameter.name}_{beta}_pow_acc_0"] = paddle.to_tensor(_power(value, self._steps + 1))
        for adamw in self._adamw.values():
            adamw.set_state_dict(state)


class MovingAverage:
    """Exponential moving average of the trained parameters, warmed up as min(decay, (1 + n) / (10 + n))."""

    def __init__(self, named: Named, decay: float):
        self._named, self._decay, self._updates = named, decay, 0
        self._averages = {name: p.detach().clone() for name, p in named.items()}

    @paddle.no_grad()
    def update(self) -> None:
        """Take in the parameters after an update."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, average in self._averages.items():
            average.lerp_(self._named[name].detach(), 1 - decay)
        self._updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the parameters hold their averages for a while."""
        held = {name: p.detach().clone() for name, p in self._named.items()}
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(held)

    def save(self, folder: Path) -> None:
        """Write the averages."""
        arrays = {name: published(name, average) for name, average in self._averages.items()}
        write_safetensors(folder / EMA_FILE, arrays, {"updates": str(self._updates)})

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            RunError: averages that do not fit.
        """
        file = folder / EMA_FILE
        self._updates = int(_metadata(file)["updates"])
        shapes = {name: published_shape(name, p) for name, p in self._named.items()}
        arrays = read_exactly(file, shapes, "what this run trains")
        for name, average in self._averages.items():
            put(name, average, arrays[name])

    @paddle.no_grad()
    def _put(self, values: Mapping[str, paddle.Tensor]) -> None:
        for name, parameter in self._named.items():
            parameter.set_value(values[name])


def _power(beta: float, exponent: int) -> NDArray[np.float32]:
    """[1], multiplied up in float32 update by update, as Paddle keeps it: so a resumed run goes on bit for bit."""
    return np.multiply.accumulate(np.full(exponent, beta, np.float32))[-1:]


def _metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "np") as opened:
        return dict(opened.metadata())
