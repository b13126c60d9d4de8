"""What fits in this device's memory: the first row of a table whose plan does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...backends.installed import choose_backend
from ...backends.out_of_memory import SIDE_STEP
from ...config import TrainConfig
from ...config.optimizers import name_of
from ...placement.machine import find_machine
from ...placement.plan import Plan
from ...placement.stages import make_plan
from ...placement.workload import WAYS
from ...training.memory_plan import sized, workload
from ...training.training_data import TrainingData

HEADROOM = 1.15
"""A run that is to be faster than the preset takes no more than this part of what is free: a plan is a prediction."""
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """Settings that are tried, and why they are chosen if their plan fits."""

    changes: Callable[[TrainConfig, bool], Changes]
    """Of the settings so far, and whether a device computes and not the host; none: the row is passed over."""
    why: str
    headroom: float = 1.0
    kept: bool = True
    """Whether the rows below go on from it."""


def _accumulated(config: TrainConfig, device: bool) -> Changes:
    samples = config.train_batch_size * config.gradient_accumulation_steps
    many = config.train_batch_size > 1
    return {"train_batch_size": 1, "gradient_accumulation_steps": samples} if many else {}


def _smaller(config: TrainConfig, device: bool) -> Changes:
    side = (config.resolution or 0) * 3 // 4 // SIDE_STEP * SIDE_STEP
    return {"resolution": side} if side else {}


def _offloaded(config: TrainConfig, device: bool) -> Changes:
    there = device and choose_backend(config.backend) == "torch" and config.placement == "cuda"
    return {"placement": "auto"} if there and name_of(config) != "adamw8bit" else {}


def _set(only_on_device: bool = False, **changes: Any) -> Callable[[TrainConfig, bool], Changes]:
    def of(config: TrainConfig, device: bool) -> Changes:
        differs = any(getattr(config, name) != value for name, value in changes.items())
        return changes if differs and (device or not only_on_device) else {}

    return of


def _quantised(method: str) -> Callable[[TrainConfig, bool], Changes]:
    def of(config: TrainConfig, device: bool) -> Changes:
        there = device and config.use_lora and choose_backend(config.backend) == "torch"
        encoders = {} if config.train_text_encoder else {"quantize_text_encoders": method}
        return {"quantize_base": method, **encoders} if there else {}

    return of


ROWS = (
    Row(_set(gradient_checkpointing=False), "all of an update fits in memory: faster", HEADROOM, kept=False),
    Row(lambda config, device: {}, ""),
    Row(_set(gradient_checkpointing=True), "less memory, more time: without it the plan does not fit"),
    Row(_set(only_on_device=True, mixed_precision="bf16"), "half the memory: in float32 the plan does not fit"),
    Row(_accumulated, "one sample at a time, and as many for an update: together the plan does not fit"),
    Row(_set(sample_batch_size=1), "images are made one at a time: together the plan does not fit"),
    Row(_quantised("int8"), "the model's own weights in 8 bits: in 16 the plan does not fit"),
    Row(_quantised("nf4"), "the model's own weights in 4 bits: in 8 the plan does not fit"),
    Row(_offloaded, "what trains, or frozen blocks, partly on the host: on the device alone the plan does not fit"),
    Row(_smaller, "smaller images: at the model's own size the plan does not fit"),
    Row(_smaller, "smaller images: at the model's own size the plan does not fit"),
)
"""From the fastest to the most sparing."""


@dataclass(frozen=True)
class Fitting:
    """Settings that fit."""

    changes: dict[str, tuple[Any, str]]
    """Each with why."""
    plan: Plan | None
    """None for a backend of which no plan is known."""
    fits: bool


def find_fitting(config: TrainConfig, data: TrainingData, folder: Path) -> Fitting:
    """The first row that fits; the last one where none does.

    Args:
        config: with the preset's settings.
        folder: the run's.

    Raises:
        ConfigError: a damaged model.
    """
    backend = choose_backend(config.backend)
    if backend not in WAYS:
        return Fitting({}, None, True)
    machine, work = find_machine(backend, config.device), workload(config, data, folder)
    given, own = config.given().keys() - config.suggested, sized(config, data)
    changes, plan = dict[str, tuple[Any, str]](), None
    for row in ROWS:
        changed = {n: v for n, v in row.changes(own, not machine.on_host).items() if n not in given}
        if not changed and row.why:
            continue
        tried = own.model_copy(update=changed)
        side = data.model.size_step
        shrunk = (tried.resolution or 1) / (sized(config, data).resolution or 1)
        height, width = (max(side, int(s * shrunk) // side * side) for s in (work.height, work.width))
        plan = make_plan(tried, data.model, replace(work, height=height, width=width), machine, backend)
        added = changes | {name: (value, row.why) for name, value in changed.items()}
        if _fits(plan, row.headroom):
            return Fitting(added, plan, True)
        if row.kept:
            own, changes = tried, added
    return Fitting(changes, plan, False)


def _fits(plan: Plan, headroom: float) -> bool:
    both = ((plan.free(place), plan.worst(place).bytes(place)) for place in plan.places())
    return all(free is None or worst * headroom <= free for free, worst in both)
