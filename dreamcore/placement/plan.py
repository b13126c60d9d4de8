"""A plan: for every stage of a run, what it holds, where, and how that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..backends.out_of_memory import SAVING, TRAINING, VALIDATION
from ..backends.peak_memory import ON_HOST
from .machine import Machine
from .times import Expected

Place = Literal["device", "host"]
CONTEXT = 600 * 2**20
"""Bytes that CUDA takes for itself in a process, as NVIDIA's documents and other trainers report it; not measured
here."""
GIB = 2**30


@dataclass(frozen=True)
class Item:
    """Something that is held.

    Args:
        what: in words.
        place: whose memory.
        bytes: how many.
        basis: how that is known: counted (from shapes and types in files' headers, and settings), by file size, or
            predicted (by a formula).
    """

    what: str
    place: Place
    bytes: int
    basis: str = "counted"


@dataclass
class Stage:
    """What is held at most while something is done."""

    name: str
    items: list[Item] = field(default_factory=list)

    def add(self, what: str, place: Place, size: float, basis: str = "counted") -> None:
        """Nothing is not mentioned."""
        if size >= 1:
            self.items.append(Item(what, place, int(size), basis))

    def bytes(self, place: Place) -> int:
        return sum(item.bytes for item in self.items if item.place == place)


@dataclass(frozen=True)
class Plan:
    """What a run takes, beside what the idle process has anyway: Python, the framework, the driver."""

    model: str
    backend: str
    machine: Machine
    stages: Sequence[Stage]
    notes: Sequence[str] = ()
    seconds: float | None = None
    """Of an update, as an earlier run of such settings in the output folder measured it; None where there is none."""
    updates: int | None = None
    """Of the run, where that is known."""
    placing: Mapping[str, Any] = field(default_factory=dict)
    """What placement auto comes to, as settings."""
    placed: str = ""
    """That, in words."""
    operations: Mapping[str, int] = field(default_factory=dict)
    """Of an update and of images made, by stage."""
    expected: Expected | None = None
    """What these take of time, where it is known what the device does in a second."""

    def worst(self, place: Place) -> Stage:
        """The stage that takes most; the first such."""
        return max(self.stages, key=lambda stage: stage.bytes(place))

    def free(self, place: Place) -> int | None:
        """Bytes that there are for the run; None where that is not known."""
        if place == "host":
            return self.machine.host_free
        return None if self.machine.free is None else self.machine.free - CONTEXT

    def lacking(self, place: Place) -> Stage | None:
        """The stage that takes most, where that is more than there is."""
        free, worst = self.free(place), self.worst(place)
        return worst if free is not None and worst.bytes(place) > free else None

    def predictions(self) -> dict[str, int]:
        """Bytes by stage, of the memory that computes, as `PeakMemory` measures them: what is done in between counts as
        training."""
        place = self.places()[0]
        found = {stage.name: stage.bytes(place) for stage in self.stages}
        between = [found.pop(name, 0) for name in (VALIDATION, SAVING)]
        found[TRAINING] = max(found[TRAINING], *between)
        return found | {ON_HOST: self.worst("host").bytes("host")}

    def places(self) -> tuple[Place, ...]:
        return ("host",) if self.machine.on_host else ("device", "host")

    def line(self) -> str:
        """The plan in a line."""
        parts = []
        for place in self.places():
            worst, free = self.worst(place), self.free(place)
            known = "" if free is None else f" of {gib(free)} free"
            parts.append(f"{gib(worst.bytes(place))}{known} on {self._where(place)} ({worst.name})")
        return f"memory, predicted at most: {'; '.join(parts)}; `dreambooth plan` says more"

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; sizes in bytes."""
        stages = [
            {
                "stage": stage.name,
                "device": None if self.machine.on_host else stage.bytes("device"),
                "host": stage.bytes("host"),
                "items": [asdict(item) for item in stage.items],
            }
            for stage in self.stages
        ]
        whole = {"model": self.model, "backend": self.backend, "machine": asdict(self.machine)}
        expected = asdict(self.expected) if self.expected else None
        measured = {"seconds_per_update": self.seconds, "updates": self.updates, "expected": expected}
        return whole | {"placing": dict(self.placing), "stages": stages, **measured, "notes": list(self.notes)}

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """What, device, host, basis: of each stage a line, and one for each thing below it."""
        for stage in self.stages:
            both = ("" if self.machine.on_host else gib(stage.bytes("device")), gib(stage.bytes("host")))
            yield stage.name, *both, ""
            for item in sorted(stage.items, key=lambda item: -item.bytes):
                on = gib(item.bytes)
                yield f"  {item.what}", *((on, "") if item.place == "device" else ("", on)), item.basis

    def in_words(self) -> str:
        """The plan as a table."""
        head = ("GiB, at most at once", "" if self.machine.on_host else self.machine.device, "host", "")
        rows = [head, *((what, d.removesuffix(" GiB"), h.removesuffix(" GiB"), b) for what, d, h, b in self.rows())]
        wide = [max(len(row[i]) for row in rows) for i in range(4)]
        table = [f"{w:<{wide[0]}}  {d:>{wide[1]}}  {h:>{wide[2]}}  {b}".rstrip() for w, d, h, b in rows]
        there = [f"{self._where(place)}: {gib(free)} free" for place in self.places() if (free := self.free(place))]
        return "\n".join(
            [
                f"{self.model} on {self.backend}, {self.machine.device}",
                *there,
                "",
                *table,
                "",
                self._time(),
                *self.notes,
            ]
        )

    def _time(self) -> str:
        if self.seconds is not None:
            whole = f", {self.seconds * self.updates / 60:.0f} minutes for {self.updates}" if self.updates else ""
            return f"Time: {self.seconds:.3g} s an update, as the run in the output folder took{whole}."
        if (found := self.expected) is None:
            return "Time: not predicted, for what this device does in a second is not known; a run measures it."
        images = {"class images": found.classes, "the images of a validation": found.validation}
        said = [f"{long(found.update)} an update ({found.operations / 1e12:.2g} TFLOP, {found.basis})"]
        said += [f"{long(found.update * self.updates)} for {self.updates:,}"] if self.updates else []
        said += [f"{long(seconds)} for {what}" for what, seconds in images.items() if seconds]
        return f"Time, predicted from operations alone: {'; '.join(said)}.  A run measures it, and plans then say that."

    def _where(self, place: Place) -> str:
        return "the host" if place == "host" else self.machine.device


def long(seconds: float) -> str:
    """A time in two digits or so."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def gib(size: float) -> str:
    """A size in GiB."""
    return f"{size / GIB:.2f} GiB"
