"""Rules for which a weight's shape matters: Adafactor, CAME, Muon."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..config import TrainConfig
from ..config.optimizers import number
from .rules import AdamW, Array, Own, Rule, Shape

SQUARE, INSTABILITY, LEAST = 1e-30, 1e-16, 1e-3
"""What Adafactor and CAME add to squares of gradients, CAME to its instability, and the least scale of a weight."""


class Adafactor(Rule):
    """The second moment as a product of its rows' and columns' means (arXiv 1804.04235, algorithm 4), as transformers
    has it: decay 1 − update^−0.8, updates of a root mean square of 1 at most; convolutions by their last two sides."""

    elementwise = False

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.beta1 = number(config, "adam_beta1")
        self.scales = config.adafactor_scale_parameter

    def slots(self, shape: Shape) -> dict[str, Shape]:
        return _factored("exp_avg_sq", shape) | ({} if self.beta1 is None else {"exp_avg": shape})

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        beta2 = 1 - self.steps**-0.8
        rate = lr * xp.maximum(_rms(xp, weight), _one(xp, weight) * LEAST) if self.scales else lr
        change = (
            _clipped(xp, gradient * _inverse_root(xp, own, "exp_avg_sq", gradient * gradient + SQUARE, beta2)) * rate
        )
        if self.beta1 is not None:
            change = own["exp_avg"] = own["exp_avg"] * self.beta1 + change * (1 - self.beta1)
        return (weight - weight * (rate * decay) if decay else weight) - change


class CAME(Rule):
    """Adafactor with momentum, each step weighed by the confidence in it (arXiv 2307.02047, algorithm 2)."""

    elementwise = False

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.betas = number(config, "adam_beta1"), number(config, "adam_beta2"), config.came_beta3

    def slots(self, shape: Shape) -> dict[str, Shape]:
        confidence = _factored("exp_avg_res", shape) if len(shape) > 1 else {}
        return _factored("exp_avg_sq", shape) | confidence | {"exp_avg": shape}

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        beta1, beta2, beta3 = self.betas
        change = _clipped(xp, gradient * _inverse_root(xp, own, "exp_avg_sq", gradient * gradient + SQUARE, beta2))
        mean = own["exp_avg"] = own["exp_avg"] * beta1 + change * (1 - beta1)
        if len(weight.shape) > 1:
            away = change - mean
            mean = mean * _inverse_root(xp, own, "exp_avg_res", away * away + INSTABILITY, beta3)
        return (weight - weight * (lr * decay) if decay else weight) - mean * lr


class Muon(Rule):
    """Momentum made orthogonal by five Newton–Schulz iterations (Jordan et al. 2024), of the size of AdamW's steps
    (arXiv 2502.16982, section 2.2), so that AdamW's rates and decays serve: `torch.optim.Muon` with `match_rms_adamw`,
    but in float32.  Convolutions are matrices [out, …].  Biases, norms, tables of embeddings and the networks' first
    and last convolutions are AdamW's."""

    elementwise = False
    NOT = ("embed", ".conv_in.", ".conv_out.")

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.momentum, self.rest = config.muon_momentum, AdamW(config)

    def of(self, name: str, shape: Shape) -> Rule:
        factor = ".lora_" in name
        return self if len(shape) > 1 and (factor or not any(part in name for part in self.NOT)) else self.rest

    def slots(self, shape: Shape) -> dict[str, Shape]:
        return {"momentum_buffer": shape}

    def begin(self, lr: Mapping[str, float]) -> None:
        self.steps += 1
        self.rest.steps = self.steps

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        mean = own["momentum_buffer"] = own["momentum_buffer"] + (gradient - own["momentum_buffer"]) * (
            1 - self.momentum
        )
        ahead = gradient + (mean - gradient) * self.momentum
        shape = tuple(weight.shape)
        matrix = ahead.reshape((shape[0], math.prod(shape[1:])))
        size = 0.2 * math.sqrt(max(matrix.shape))
        return weight * (1 - lr * decay) - _orthogonal(xp, matrix).reshape(shape) * (lr * size)


def _factored(name: str, shape: Shape) -> dict[str, Shape]:
    """The slots of a mean: whole of a vector, of a matrix two vectors."""
    if len(shape) < 2:
        return {name: shape}
    return {f"{name}_row": shape[:-1], f"{name}_col": (*shape[:-2], shape[-1])}


def _inverse_root(xp: Any, own: Own, name: str, values: Array, beta: float) -> Array:
    """1/√ of the running mean of values, which is kept in `_factored` slots."""
    if name in own:
        own[name] = own[name] * beta + values * (1 - beta)
        return 1 / xp.sqrt(own[name])
    row = own[f"{name}_row"] = own[f"{name}_row"] * beta + xp.mean(values, -1) * (1 - beta)
    column = own[f"{name}_col"] = own[f"{name}_col"] * beta + xp.mean(values, -2) * (1 - beta)
    sides = tuple(values.shape)
    share = row / xp.mean(row, -1).reshape((*sides[:-2], 1))
    return 1 / xp.sqrt(share).reshape((*sides[:-1], 1)) / xp.sqrt(column).reshape((*sides[:-2], 1, sides[-1]))


def _rms(xp: Any, values: Array) -> Array:
    return xp.sqrt(xp.sum(values * values) / math.prod(values.shape))


def _one(xp: Any, values: Array) -> Array:
    return xp.zeros_like(xp.sum(values)) + 1


def _clipped(xp: Any, change: Array) -> Array:
    """A change whose root mean square is 1 at most."""
    return change / xp.maximum(_rms(xp, change), _one(xp, change))


def _orthogonal(xp: Any, matrix: Array) -> Array:
    """About U Vᵀ of U S Vᵀ: singular values of 0.7 … 1.2 (Jordan's coefficients)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / xp.maximum(xp.sqrt(xp.sum(x * x)), _one(xp, x) * 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = x * 3.4445 + (gram * -4.7750 + gram @ gram * 2.0315) @ x
    return x.T if tall else x
