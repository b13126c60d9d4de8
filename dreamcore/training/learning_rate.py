"""The learning rate as a pure function of the update: the six schedules of diffusers' `get_scheduler`.

Counted in updates, never in micro-batches or devices; nothing to save, nothing to step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import TrainConfig
from ..config.optimizers import advice, usual_rate

POLYNOMIAL_END = 1e-7
"""Where `polynomial` ends, as in diffusers: a learning rate, not a share of the base rate."""
RELATIVE = "adafactor"
"""The course of Adafactor's own rate, as kohya names it: 1/√update, but no more than the base rate, which with a
warm-up grows with the updates (arXiv 1804.04235, section 8)."""


def usual_of_adamw(config: TrainConfig) -> float:
    """AdamW's learning rate where none is given."""
    return 1e-4 if config.use_lora else 5e-6


def learning_rate(
    base: float,
    schedule: str,
    update: int,
    total: int,
    *,
    warmup: int = 0,
    num_cycles: int = 1,
    power: float = 1.0,
) -> float:
    """The learning rate of an update.

    Args:
        base: the highest rate.
        schedule: one of the six names of `config.train.LRScheduler`, or `RELATIVE`.
        update: 0 for the run's first update.
        total: updates in all.
        warmup: updates over which the rate rises from 0 to `base`; `constant` has none.
        num_cycles: hard restarts of `cosine_with_restarts`.
        power: exponent of `polynomial`.
    """
    if schedule == "constant":
        return base
    if schedule == RELATIVE:
        return min(base * (update + 1) if warmup else base, 1 / math.sqrt(update + 1))
    if update < warmup:
        return base * update / warmup
    if schedule == "constant_with_warmup":
        return base
    progress = min(1.0, (update - warmup) / max(1, total - warmup))
    if schedule == "linear":
        return base * (1.0 - progress)
    if schedule == "cosine":
        return base * 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "cosine_with_restarts":
        return 0.0 if progress == 1.0 else base * 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0)))
    if schedule == "polynomial":
        end = min(base, POLYNOMIAL_END)
        return (base - end) * math.pow(1.0 - progress, power) + end
    raise ValueError(f"lr_scheduler: unknown schedule {schedule!r}")


@dataclass(frozen=True)
class LearningRates:
    """The learning rate of each component at any update."""

    base: Mapping[str, float]
    schedule: str
    total: int
    shape: Mapping[str, Any]
    ends: Mapping[str, int] = field(default_factory=dict)
    """Component -> the update from which on it does not train any more."""

    @classmethod
    def from_config(
        cls, config: TrainConfig, components: list[str], samples_per_update: int, total: int
    ) -> LearningRates:
        """`components`: the denoiser, then the text encoders that train."""
        if config.optimizer == "adafactor" and config.adafactor_relative_step:
            first = 1e-6 if config.adafactor_warmup_init else 1e-2
            return cls(dict.fromkeys(components, first), RELATIVE, total, {"warmup": total} if first < 1e-2 else {})
        base = config.learning_rate or usual_rate(config, usual_of_adamw(config))
        rates = {components[0]: base}
        for encoder in components[1:]:
            rates[encoder] = base if config.optimizer == "prodigy" else config.text_encoder_lr or base
        if config.scale_lr:
            rates = {name: rate * samples_per_update for name, rate in rates.items()}
        kind = config.lr_scheduler
        shape: dict[str, Any] = {}
        if kind != "constant":
            shape["warmup"] = config.lr_warmup_steps
        if kind == "cosine_with_restarts":
            shape["num_cycles"] = config.lr_num_cycles
        if kind == "polynomial":
            shape["power"] = config.lr_power
        return cls(rates, kind, total, shape, _ends(config, components, total))

    def at(self, update: int) -> dict[str, float]:
        """Learning rates of an update, counted from 0."""
        rates = {n: learning_rate(b, self.schedule, update, self.total, **self.shape) for n, b in self.base.items()}
        return {name: rate if update < self.ends.get(name, self.total) else 0.0 for name, rate in rates.items()}


def _ends(config: TrainConfig, components: list[str], total: int) -> dict[str, int]:
    """When the denoiser and new words cease to train."""
    if not config.train_text_encoder_ti:
        return {}
    words = dict.fromkeys(components[1:], int(config.train_text_encoder_ti_frac * total))
    return {components[0]: int(config.train_transformer_frac * total)} | words


def idle_at_the_end(rates: LearningRates) -> str | None:
    """What is said of updates in which nothing trains any more."""
    last = max(rates.ends.values(), default=rates.total)
    if last >= rates.total:
        return None
    return (
        f"train_text_encoder_ti_frac: after update {last} of {rates.total} nothing trains any more, and the rest only "
        "takes time; with train_transformer_frac 0 the new words alone train: give 1"
    )


def warm_up_too_long(rates: LearningRates) -> str | None:
    """What is said of a learning rate that never gets to its full height."""
    warmup = rates.shape.get("warmup", 0)
    if warmup < rates.total or rates.schedule == RELATIVE:
        return None
    highest = rates.at(rates.total - 1)[next(iter(rates.base))]
    return (
        f"lr_warmup_steps: {warmup} is not less than the {rates.total} updates of this run, so the learning rate ends "
        f"at {highest:.2g} and never gets to {next(iter(rates.base.values())):.2g}; give fewer"
    )


def unusual_rate(config: TrainConfig) -> str | None:
    """What is said of a learning rate that does not fit the optimizer."""
    return advice(config, usual_of_adamw(config))
