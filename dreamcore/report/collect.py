"""What a run folder holds, read without trust: a part that is missing or damaged is left out, and said to be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..config import read_config_file
from ..errors import ConfigError
from ..hub.card import instance_prompts
from ..io.names import CONFIG, METRICS, SAMPLES, VALIDATION
from ..runs import best
from ..runs.checkpoint import list_checkpoints
from ..runs.next_steps import NextSteps, next_steps, told
from ..runs.status import Status, now
from ..runs.watching import WatchedRun, look_at
from ..track import read_lines

SHORTEST_WAIT, LONGEST_WAIT = timedelta(minutes=15), timedelta(hours=6)
"""How long a page looks for a newer one of a run that goes on: at least, for images and saving take their time; and at
most, for the run may be dead."""
_SAMPLE = re.compile(r"step-(\d+)-(\d+)\.png")


@dataclass
class SubjectData:
    """One subject's words, its photographs, and what was drawn of its class."""

    words: str = ""
    instance_images: list[Path] = field(default_factory=list)
    class_prompt: str = ""
    class_images: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Live:
    """When a page was written of a run that goes on, and until when a newer one is to be looked for."""

    written: datetime
    until: datetime


@dataclass
class RunData:
    """The contents of a report."""

    name: str
    """The run folder's name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Records of metrics.jsonl, in order."""
    samples: dict[int, dict[int, Path]] = field(default_factory=dict)
    """Update (0: before training) -> image's number -> file, both ascending."""
    instance_images: list[Path] = field(default_factory=list)
    class_images: list[Path] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    """(update, loss on held-out photographs), ascending."""
    validation: list[dict[str, Any]] = field(default_factory=list)
    """What was measured of each update that was looked at, ascending: `step`, and numbers by their names."""
    judge: str = ""
    """Who has scored its validation images, in words."""
    about_judge: str = ""
    """What those scores mean."""
    best: best.Best | None = None
    """Which update `checkpoint-best` is of."""
    checkpoints: list[int] = field(default_factory=list)
    state: str = ""
    """Whether and how the run has ended, in words."""
    live: Live | None = None
    """Of a run that may go on; None of one that has ended."""
    status: Status | None = None
    """What it has written last of what it does."""
    subjects: list[SubjectData] = field(default_factory=list)
    """Who was taught, each with its words, as far as they are known."""
    warnings: list[str] = field(default_factory=list)
    """What was warned of."""
    next: NextSteps | None = None
    """What one can do with it; commands name the folder by its absolute path."""
    lora: str = ""
    """How much of the finished LoRA other programs find, in words."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    about_scores: str = ""
    """What they mean."""
    problems: list[str] = field(default_factory=list)
    """Parts that were there and could not be read."""

    def column(self, name: str) -> NDArray[np.float64]:
        """One value of every update's record; NaN where it is absent or was not finite."""
        return np.array([v if is_number(v := r.get(name)) else np.nan for r in self.metrics], np.float64)

    @property
    def measures(self) -> list[str]:
        """What was measured along the way, by name."""
        return [n for n in dict.fromkeys(n for r in self.validation for n in r) if self.measured(n)]

    def measured(self, name: str) -> list[tuple[int, float]]:
        """(update, value) of one of `measures`, ascending."""
        return [(int(r["step"]), float(r[name])) for r in self.validation if name != "step" and is_number(r.get(name))]

    @property
    def prompt(self) -> str:
        """The words of the validation images, the last ones' where they have others; empty where they are not known."""
        words, last = (self.config.get(name) for name in ("validation_prompt", "final_validation_prompt"))
        return f"{words or ''}" + (f" (at the end: {last})" if last else "")

    @property
    def updates(self) -> int:
        """The last update that was recorded; 0 where none was."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0


def collect(folder: Path, seen: WatchedRun | None = None) -> RunData:
    """Read the run folder.

    Args:
        seen: the run as it was seen from outside; None: as it is seen now.
    """
    data = RunData(name=folder.resolve().name)
    extras = _extras(folder, data.problems)
    try:
        data.config = read_config_file(folder / CONFIG)
    except ConfigError as error:
        data.problems.append(str(error))
    data.metrics = read_lines(folder / METRICS)
    data.samples = _samples(folder / SAMPLES)
    data.instance_images = _paths(folder, extras.get("instance_images"))
    data.class_images = _paths(folder, extras.get("class_images"))
    data.validation = _validation(folder, extras.get("validation_loss"))
    data.held_out = data.measured("validation_loss")
    data.best = best.read(folder)
    data.judge, data.about_judge = (str(extras.get(name) or "") for name in ("judge", "about_judge"))
    data.checkpoints = [update for update, _ in list_checkpoints(folder)]
    data.subjects = _subjects(data, extras.get("subjects"))
    data.warnings = [str(one) for one in warnings] if isinstance(warnings := extras.get("warnings"), list) else []
    data.next = next_steps(folder, called=folder.resolve())
    _look(data, look_at(folder) if seen is None else seen, extras)
    data.lora = str(extras.get("lora", ""))
    data.timing = _mapping(extras.get("timing"))
    data.scores, data.about_scores = _mapping(extras.get("scores")), str(extras.get("about_scores") or "")
    return data


def _look(data: RunData, seen: WatchedRun | None, extras: Mapping[str, Any]) -> None:
    """What the run is doing: what it says of its end itself, or what is seen from outside."""
    data.status = seen.status if seen else None
    data.state = str(extras.get("state", ""))
    if seen is None or extras.get("ended"):
        return
    if seen.running:
        data.state = f"{seen.state}, {seen.status.progress}"
        written = now()
        data.live = Live(written, written + _patience(data, seen.status))
    elif not data.state or "ended" in extras or seen.state == "dead":
        reason = f" ({seen.status.reason})" if seen.status.reason else ""
        data.state = f"{seen.state}{reason}, {seen.status.progress}"


def _patience(data: RunData, status: Status) -> timedelta:
    """How long a newer report may take: three times as long as the updates until the next validation, or the last."""
    every, rate = data.config.get("validation_steps"), status.updates_per_second
    if not rate:
        return LONGEST_WAIT
    left = max((status.total_updates or status.update) - status.update, 0)
    updates = min(left, every) if isinstance(every, int) and data.config.get("validation_prompt") else left
    return min(LONGEST_WAIT, SHORTEST_WAIT + timedelta(seconds=3 * updates / rate))


def _subjects(data: RunData, listed: Any) -> list[SubjectData]:
    """The subjects, each with those of the images that are its own, which are listed in their order."""
    parts = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    instances, classes = iter(data.instance_images), iter(data.class_images)

    def some(images: Iterator[Path], count: Any) -> list[Path]:
        return list(islice(images, count)) if isinstance(count, int) and count > 0 else []

    found = [
        SubjectData(
            str(one.get("words") or ""),
            some(instances, one.get("instance_images")),
            str(one.get("class_prompt") or ""),
            some(classes, one.get("class_images")),
        )
        for one in parts
    ]
    left = SubjectData("", list(instances), "", list(classes))
    if not found:  # a run of an older version
        left.words = ", ".join(instance_prompts(data.config))
        left.class_prompt = str(data.config.get("class_prompt") or "")
    return [*found, *([left] if left.instance_images or left.class_images or not found else [])]


def _extras(folder: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        return told(folder)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"report_data.json: {error}")
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _paths(folder: Path, names: Any) -> list[Path]:
    return [folder / str(name) for name in names] if isinstance(names, list) else []


def _samples(folder: Path) -> dict[int, dict[int, Path]]:
    found = [(int(m[1]), int(m[2]), p) for p in folder.glob("step-*.png") if (m := _SAMPLE.fullmatch(p.name))]
    samples: dict[int, dict[int, Path]] = {}
    for step, number, path in sorted(found):
        samples.setdefault(step, {})[number] = path
    return samples


def _validation(folder: Path, extra: Any) -> list[dict[str, Any]]:
    """What validations measured, one record an update: a resumed run may have measured one twice."""
    records = [dict(record) for record in read_lines(folder / VALIDATION)]
    pairs = [pair for pair in extra if isinstance(pair, list) and len(pair) == 2] if isinstance(extra, list) else []
    records += [{"step": int(step), "validation_loss": loss} for step, loss in pairs if is_number(step)]
    found = dict[int, dict[str, Any]]()
    for record in records:
        found.setdefault(record["step"], {}).update(record)
    return [found[step] for step in sorted(found)]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value read from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
