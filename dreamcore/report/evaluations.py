"""What `dreambooth evaluate` has found of a run, read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..io.names import EVALUATION
from .charts import number
from .collect import is_number


@dataclass(frozen=True)
class Score:
    """A measure's mean, and its 95 % interval where it has one."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{number(self.low)}, {number(self.high)}]"
        return f"{number(self.value)}{interval}"


@dataclass(frozen=True)
class Evaluated:
    """An evaluation."""

    folder: Path
    source: str
    """What was judged, as it was named."""
    judge: tuple[str, ...]
    """Its name, and what tells its weights from others'."""
    made: Mapping[str, Any]
    """Which pictures: the settings, and the prompts and seeds, that made them."""
    scores: Mapping[str, Score]
    """By measure; of several subjects with their names before."""

    def is_of(self, run: Path) -> bool:
        """Whether that run was judged: it lies in its folder, or names it."""
        named = Path(self.source).expanduser()
        return run.resolve() in (named.resolve(), *self.folder.resolve().parents)


def read_evaluation(folder: Path) -> Evaluated | None:
    """An evaluation's numbers; None where there are none, or none that can be read."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        content = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        subjects, judge = content["subjects"], content["judge"]
        pictures = [(one["prompt"], one["seed"]) for subject in subjects for one in subject["pictures"]]
        several = len(subjects) > 1
        scores = {
            f"{subject['name']} · {name}" if several else str(name): Score(
                float(said["value"]), *(float(v) if is_number(v := said.get(end)) else None for end in ("low", "high"))
            )
            for subject in subjects
            for name, said in subject["measures"].items()
        }
        identity = (str(judge["name"]), *(f"{name}: {said}" for name, said in sorted(judge["sources"].items())))
        made = {**content["settings"], "pictures": sorted(map(str, pictures))}
        return Evaluated(folder, str(content["source"]), identity, made, scores)
    return None


def evaluations(runs: Sequence[Path], given: Sequence[Path]) -> list[Evaluated | None]:
    """Of each run the evaluation that is given of it, or the newest in its folder.

    Raises:
        ConfigError: one that is given is no evaluation, or of none of the runs.
    """
    found: list[Evaluated | None] = [_newest(run) for run in runs]
    for folder in given:
        if (one := read_evaluation(folder)) is None:
            raise ConfigError(f"evaluation: {folder}: no {EVALUATION} there that can be read; `dreambooth evaluate`")
        places = [place for place, run in enumerate(runs) if one.is_of(run)]
        if not places:
            raise ConfigError(f"evaluation: {folder}: is of {one.source}, which is none of the runs")
        found[places[0]] = one
    return found


def _newest(run: Path) -> Evaluated | None:
    files = sorted(run.glob(f"*/{EVALUATION}"), key=lambda file: file.stat().st_mtime, reverse=True)
    return next(filter(None, (read_evaluation(file.parent) for file in files)), None)
