"""A few weights under an optimizer, on whichever backend is installed: for tests of the update by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.loss_scale import LossScale

from .runs import configuration

SHAPES = {"unet.a.weight": (3, 4), "unet.b": (5,), "unet.d.weight": (4, 2, 3, 3), "text_encoder.c": (2, 2)}
"""As published; the first is a Linear weight, which Paddle keeps turned."""
LR = {"unet": 1e-2, "text_encoder": 3e-3}
Values = dict[str, np.ndarray]


def numbers(seed: int) -> Values:
    """Weights, or gradients."""
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


class Bench(ABC):
    """Weights of `SHAPES`, and what optimizes them.

    Args:
        scale: fp16's loss scale; none for other precisions.
        start: the weights; `numbers(0)` unless they are given.
        settings: of the run.
    """

    def __init__(self, scale: LossScale | None, start: Values | None, **settings: Any):
        self.weights = {name: self.weight(name, array) for name, array in (start or numbers(0)).items()}
        parts = {c: {n: w for n, w in self.weights.items() if n.startswith(c)} for c in LR}
        config = configuration(Path("model"), Path("photos"), Path("out"), **settings)
        self.optimizer = self.make_optimizer(parts, config, scale)

    @abstractmethod
    def weight(self, name: str, array: np.ndarray) -> Any: ...

    @abstractmethod
    def make_optimizer(self, parts: Mapping[str, Any], config: Any, scale: LossScale | None) -> Any: ...

    @abstractmethod
    def step(self, gradients: Values, lr: Mapping[str, float] = LR) -> float:
        """An update by these gradients; returns their norm."""

    @abstractmethod
    def values(self) -> Values:
        """The weights, as published."""

    @abstractmethod
    def average(self, decay: float) -> Any:
        """A moving average of the weights."""

    def loss_scale(self) -> float:
        return float(self.optimizer.loss_scale.scale)


class Torch(Bench):
    def weight(self, name: str, array: np.ndarray) -> Any:
        import torch

        return torch.nn.Parameter(torch.from_numpy(array))

    def make_optimizer(self, parts: Mapping[str, Any], config: Any, scale: LossScale | None) -> Any:
        import torch

        from dreamcore.adapters.torch.optim import Optimizer

        scaler = torch.amp.GradScaler("cpu", enabled=False)
        if scale:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale.scale, growth_interval=scale.growth_interval)
            scaler.scale(torch.zeros(()))  # it is made with the first loss
        return Optimizer(parts, config, scaler)

    def step(self, gradients: Values, lr: Mapping[str, float] = LR) -> float:
        import torch

        for name, weight in self.weights.items():
            weight.grad = torch.from_numpy(gradients[name].copy())
        return float(self.optimizer.step(lr))

    def values(self) -> Values:
        return {name: weight.detach().numpy().copy() for name, weight in self.weights.items()}

    def average(self, decay: float) -> Any:
        from dreamcore.adapters.torch.ema import EMA

        return EMA(self.weights, decay)

    def loss_scale(self) -> float:
        return float(self.optimizer.scaler.get_scale())


class Paddle(Bench):
    def weight(self, name: str, array: np.ndarray) -> Any:
        import paddle

        from dreamcore.adapters.paddle.models import put
        from dreamcore.formats.weights import swap_layout

        made = paddle.create_parameter(list(swap_layout(name, array).shape), "float32")
        put(name, made, array)
        return made

    def make_optimizer(self, parts: Mapping[str, Any], config: Any, scale: LossScale | None) -> Any:
        from dreamcore.adapters.paddle.optim import Optimizer

        return Optimizer(parts, config, scale)

    def step(self, gradients: Values, lr: Mapping[str, float] = LR) -> float:
        import paddle

        from dreamcore.formats.weights import swap_layout

        for name, weight in self.weights.items():
            gradient = np.asarray(swap_layout(name, gradients[name]), order="C")
            (weight * paddle.to_tensor(gradient)).sum().backward()
        return float(self.optimizer.step(lr))

    def values(self) -> Values:
        from dreamcore.adapters.paddle.models import published

        return {name: published(name, weight).copy() for name, weight in self.weights.items()}

    def average(self, decay: float) -> Any:
        from dreamcore.adapters.paddle.ema import EMA

        return EMA(self.weights, decay)


class MindSpore(Bench):
    def __init__(self, scale: LossScale | None, start: Values | None, **settings: Any):
        from dreamcore.adapters.mindspore.devices import choose_device

        choose_device(configuration(Path("model"), Path("photos"), Path("out"), device="cpu"))  # before any tensor
        super().__init__(scale, start, **settings)

    def weight(self, name: str, array: np.ndarray) -> Any:
        import mindspore as ms

        return ms.Parameter(ms.Tensor(array), name=name)

    def make_optimizer(self, parts: Mapping[str, Any], config: Any, scale: LossScale | None) -> Any:
        from dreamcore.adapters.mindspore.optim import Optimizer

        return Optimizer(parts, config, scale)

    def step(self, gradients: Values, lr: Mapping[str, float] = LR) -> float:
        import mindspore as ms

        from dreamcore.adapters.mindspore.buckets import flatten_all

        given = [ms.Tensor(gradients[name]) for name in self.weights]
        return float(self.optimizer.step(flatten_all(self.optimizer.buckets, given), lr))

    def values(self) -> Values:
        return {name: weight.asnumpy().copy() for name, weight in self.weights.items()}

    def average(self, decay: float) -> Any:
        from dreamcore.adapters.mindspore.ema import EMA

        return EMA(self.optimizer.buckets, decay)


BENCHES = {"torch": Torch, "paddle": Paddle, "mindspore": MindSpore}


def bench(scale: LossScale | None = None, start: Values | None = None, **settings: Any) -> Bench:
    """On the backend that is installed."""
    return BENCHES[installed_backends()[0]](scale, start, **settings)


def adamw_by_hand(updates: int, max_norm: float, decay: float = 1e-2) -> Values:
    """The weights after updates by `numbers(1)`, `numbers(2)` ...: AdamW as in arXiv 1711.05101, algorithm 2, with
    torch's order of operations, in float64."""
    weights = {n: a.astype(np.float64) for n, a in numbers(0).items()}
    first = {n: np.zeros_like(a) for n, a in weights.items()}
    second = {n: np.zeros_like(a) for n, a in weights.items()}
    for k in range(1, updates + 1):
        gradients = numbers(k)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
        for n, w in weights.items():
            g = gradients[n] * (min(1.0, max_norm / (norm + 1e-6)) if max_norm else 1.0)
            lr = LR[n.partition(".")[0]]
            w *= 1 - lr * decay
            first[n] = 0.9 * first[n] + 0.1 * g
            second[n] = 0.999 * second[n] + 0.001 * g**2
            w -= lr * (first[n] / (1 - 0.9**k)) / (np.sqrt(second[n] / (1 - 0.999**k)) + 1e-8)
    return weights
