"""Placement auto: as much on the device as the plan says fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..config import TrainConfig
from ..config.optimizers import name_of
from .plan import Plan

HEADROOM = 1.05
"""What is free is this many times what the plan takes: it is a prediction."""
TENTHS = 10
Placing = dict[str, Any]
"""Settings of placement."""


def choose_placement(config: TrainConfig, blocks: int, planned: Callable[[Placing], Plan]) -> Plan:
    """The plan of the first placement that fits, and if none does, of the most sparing; with the settings that it is.

    Args:
        blocks: of the denoiser.
    """
    plan = planned({"placement": "cuda"})
    tried: Placing = {"placement": "cuda"}
    if plan.machine.on_host:
        return _chosen(plan, tried, "the device is the host")
    if plan.free("device") is None:
        return _chosen(plan, tried, "what is free on the device is not known")
    for tried in _sparing(config, blocks):
        plan = planned(tried)
        if _fits(plan):
            return _chosen(plan, tried, "it fits")
    return _chosen(plan, tried, "no placement fits, and this takes least")


def _sparing(config: TrainConfig, blocks: int) -> Iterator[Placing]:
    """Placements from the fastest to the most sparing."""
    yield {"placement": "cuda"}
    if config.use_lora:
        if config.blocks_to_swap or config.compile or config.quantize_base is not None:
            return  # given, or not to be moved
        for tenth in range(1, TENTHS + 1):
            yield {"placement": "cuda", "blocks_to_swap": -(-blocks * tenth // TENTHS)}
        return
    least = 1 if name_of(config) == "adamw" else TENTHS
    for tenth in range(least, TENTHS + 1):
        yield {"placement": "cpu", "offload_optim_frac": tenth / TENTHS}


def _fits(plan: Plan) -> bool:
    free = plan.free("device")
    return free is None or plan.worst("device").bytes("device") * HEADROOM <= free


def _chosen(plan: Plan, placing: Placing, why: str) -> Plan:
    said = ", ".join(f"{name} {value}" for name, value in placing.items())
    placed = f"placement auto: {said} ({why})"
    return replace(plan, placing=placing, placed=placed, notes=[*plan.notes, placed])
