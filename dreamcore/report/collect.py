"""What a run folder holds, read without trust: a part that is missing or damaged is left out, and said to be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..config import read_config_file
from ..errors import ConfigError
from ..io.names import CONFIG, METRICS, SAMPLES, VALIDATION
from ..runs.checkpoint import list_checkpoints
from ..track import read_lines

_SAMPLE = re.compile(r"step-(\d+)-(\d+)\.png")


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
    checkpoints: list[int] = field(default_factory=list)
    state: str = ""
    """Whether and how the run has ended, in words."""
    lora: str = ""
    """How much of the finished LoRA other programs find, in words."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Parts that were there and could not be read."""

    def column(self, name: str) -> NDArray[np.float64]:
        """One value of every update's record; NaN where it is absent or was not finite."""
        return np.array([v if is_number(v := r.get(name)) else np.nan for r in self.metrics], np.float64)

    @property
    def prompt(self) -> str:
        """The words of the validation images, the last ones' where they have others; empty where they are not known."""
        words, last = (self.config.get(name) for name in ("validation_prompt", "final_validation_prompt"))
        return f"{words or ''}" + (f" (at the end: {last})" if last else "")

    @property
    def updates(self) -> int:
        """The last update that was recorded; 0 where none was."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0


def collect(folder: Path) -> RunData:
    """Read the run folder."""
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
    data.held_out = _held_out(folder, extras.get("validation_loss"))
    data.checkpoints = [update for update, _ in list_checkpoints(folder)]
    data.state = str(extras.get("state", ""))
    data.lora = str(extras.get("lora", ""))
    data.timing = _mapping(extras.get("timing"))
    data.scores = _mapping(extras.get("scores"))
    return data


def _extras(folder: Path, problems: list[str]) -> Mapping[str, Any]:
    path = folder / "report_data.json"
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
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


def _held_out(folder: Path, extra: Any) -> list[tuple[int, float]]:
    """Held-out losses, one an update: a resumed run may have measured one twice."""
    pairs: list[Any] = [(r["step"], r.get("validation_loss")) for r in read_lines(folder / VALIDATION)]
    pairs += [pair for pair in extra if isinstance(pair, list) and len(pair) == 2] if isinstance(extra, list) else []
    return sorted({int(step): float(loss) for step, loss in pairs if is_number(step) and is_number(loss)}.items())


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value read from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
