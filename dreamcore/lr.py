"""The learning rate as a pure function of the update: the six schedules of diffusers' `get_scheduler`.

Counted in updates, never in micro-batches or devices; nothing to save, nothing to step.
"""

from __future__ import annotations

import math

POLYNOMIAL_END = 1e-7
"""Where `polynomial` ends, as in diffusers: a learning rate, not a share of the base rate."""


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
        schedule: one of the six names of `config.train.LRScheduler`.
        update: 0 for the run's first update.
        total: updates in all.
        warmup: updates over which the rate rises from 0 to `base`; `constant` has none.
        num_cycles: hard restarts of `cosine_with_restarts`.
        power: exponent of `polynomial`.
    """
    if schedule == "constant":
        return base
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
