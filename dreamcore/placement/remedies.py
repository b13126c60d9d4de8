"""What would make a plan fit: the table of `backends/out_of_memory.py`, each setting tried in a plan of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..backends.out_of_memory import REMEDIES, Case
from ..config import TrainConfig
from .plan import Place, Plan, gib

LEAST = 32 * 2**20
"""Bytes that a setting saves at least to be named."""
WEIGHTS = ": weights"
"""In what items of components' weights are called."""
Again = Callable[[TrainConfig, float], Plan]
"""The plan of a run with other settings, and images whose sides are this many times as long."""


@dataclass(frozen=True)
class Step:
    """A setting that saves memory, taken together with those before it."""

    words: str
    saves: int
    left: int
    """Bytes at most, with it."""


def steps(plan: Plan, config: TrainConfig, place: Place, again: Again) -> tuple[list[Step], Plan]:
    """The settings to take one after the other until the plan fits, or until there are no more, and the last plan."""
    taken, found = set[int](), list[Step]()
    while (lacking := plan.lacking(place)) is not None:
        kind = "host" if plan.machine.on_host else place
        case, before = Case(config, plan.backend, lacking.name, kind), lacking.bytes(place)
        for number, (words, changed) in _open(case):
            if number in taken:
                continue
            other = config.model_copy(update=changed)
            new = again(other, _shrunk(config, changed))
            if before - new.worst(place).bytes(place) >= LEAST:
                taken.add(number)
                left = new.worst(place).bytes(place)
                found.append(Step(words, before - left, left))
                config, plan = other, new
                break
        else:
            return found, plan
    return found, plan


def _open(case: Case) -> Iterator[tuple[int, tuple[str, dict[str, Any]]]]:
    """The rows of the table that help in a case and that a plan can try: number, words and settings."""
    for number, (words, stages, helps, change) in enumerate(REMEDIES):
        if case.stage in stages and helps(case) and (changed := change(case)):
            said = words if isinstance(words, str) else words(case)
            sides = [str(changed[n]) for n in ("resolution", "height", "width") if n in changed]
            yield number, (f"{said} (at {' × '.join(sides)})" if sides else said, changed)


def _shrunk(config: TrainConfig, changed: dict[str, Any]) -> float:
    """By how much the sides of images are shorter."""
    name = "resolution" if "resolution" in changed else "height"
    old = config.__dict__.get(name)
    return changed[name] / old if name in changed and old else 1.0


def cannot_fit(plan: Plan) -> bool:
    """Whether a run is not begun: a device's memory does not suffice, or the host's holds not even the weights."""
    if not plan.machine.on_host and plan.lacking("device") is not None:
        return True
    free = plan.free("host")
    return free is not None and weights_on_host(plan) > free


def weights_on_host(plan: Plan) -> int:
    """Bytes of the host's memory that weights alone take at most at once."""
    return max(
        sum(item.bytes for item in stage.items if item.place == "host" and WEIGHTS in item.what)
        for stage in plan.stages
    )


def advise_fitting(plan: Plan, config: TrainConfig, again: Again) -> str | None:
    """What does not fit, and what would make it fit, one place after the other; None where all does."""
    said = [_advice(plan, config, place, again) for place in plan.places() if plan.lacking(place) is not None]
    return ".  ".join(said) or None


def _advice(plan: Plan, config: TrainConfig, place: Place, again: Again) -> str:
    worst, free = plan.worst(place), plan.free(place) or 0
    where = "the host" if place == "host" else plan.machine.device
    found, last = steps(plan, config, place, again)
    said = f"memory: {worst.name} would take {gib(worst.bytes(place))} of {where}, which has {gib(free)} free"
    if not found:
        return f"{said}, and no setting is known to make it fit"
    listed = "; ".join(f"{s.words} saves {gib(s.saves)}, {gib(s.left)} left" for s in found)
    fits = "would make it fit" if last.lacking(place) is None else "would help, and not suffice"
    return f"{said}.  What {fits}, one after the other: {listed}"
