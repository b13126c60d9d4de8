"""The one screen that says what `teach` is about to do."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config import TrainConfig
from ...data.finding import some
from ...data.inspection import Inspection
from ...placement.plan import Plan
from ...runs.watching import find_runs
from ..plan import seconds_per_update
from .models import Chosen, size

WIDTH, LABEL = 100, 14
MOST_WARNINGS = 8
"""Lines about the photographs that are shown; `dreambooth data` shows all."""


@dataclass(frozen=True)
class Screen:
    """What is said before a run.

    Args:
        photos: the folder of photographs.
        inspections: what training would see of them; none where the model, and so the size, is not known yet.
        size: (H, W) of the training images.
        chosen: the model.
        preset: its preset, and why.
        words: the prompt, and where the identifier comes from.
        updates: how many, and why.
        memory: what the plan says, in words.
        seconds: of an update, where that is known.
        output: the run's folder, and whether it is new.
    """

    photos: Path
    inspections: Sequence[Inspection]
    size: tuple[int, int]
    chosen: Chosen
    preset: str
    words: str
    updates: tuple[int | None, str]
    memory: str
    seconds: float | None
    output: str

    def text(self) -> str:
        """The screen."""
        name, fetch = self.chosen.name, self.chosen.fetch
        count, why = self.updates
        rows = [
            ("photographs", self._photographs()),
            *[("warning", text) for text in self._warnings()],
            ("model", f"{name} ({self.chosen.why})"),
            ("how", self.preset),
            ("words", self.words),
            ("updates", why if count is None else f"{count} ({why})"),
            ("time", self._time()),
            ("memory", self.memory),
            ("download", f"{size(fetch.bytes)} into {fetch.folder}" if fetch else "nothing"),
            ("results", self.output),
        ]
        return "\n".join(_row(label, text) for label, text in rows)

    def _photographs(self) -> str:
        height, width = self.size
        rows = [row for inspection in self.inspections for row in inspection.rows]
        said = f"{len(rows)} in {self.photos}, each trained at {width} × {height}"
        used = [(row.crop[2] - row.crop[0]) * (row.crop[3] - row.crop[1]) / (row.size[0] * row.size[1]) for row in rows]
        if used and min(used) < 0.995:
            said += f"; crops show {min(used):.0%} to {max(used):.0%} of them"
        return f"{said} (`dreambooth data {self.photos}` draws them)"

    def _warnings(self) -> list[str]:
        by_kind: dict[str, list[tuple[str, str]]] = {}
        lines = list[str]()
        for inspection in self.inspections:
            for row in inspection.rows:
                for remark in row.remarks:
                    by_kind.setdefault(remark.kind, []).append((row.name, remark.text))
            lines += [remark.text for remark in inspection.remarks] + list(inspection.notes)
        for kind, found in by_kind.items():
            (first, text), names = found[0], [name for name, _ in found]
            lines.append(f"{first}: {text}" if len(found) == 1 else f"{kind}: {some(names)}; {first}: {text}")
        more = len(lines) - MOST_WARNINGS
        left = [f"and {more} more; `dreambooth data {self.photos}` says all"] if more > 0 else []
        return lines[:MOST_WARNINGS] + left

    def _time(self) -> str:
        count = self.updates[0]
        if self.seconds is None or count is None:
            return "not known before the first updates have been made; it is shown while the run trains"
        minutes = round(self.seconds * count / 60)
        said = f"about {minutes} minutes" if minutes > 1 else "about a minute, or less"
        return f"{said}, of training, if it is as fast as an earlier run here"


def memory_in_words(plan: Plan | None, fits: bool) -> str:
    """What a plan says, or that there is none."""
    if plan is None:
        return "not known: no plan is made for this backend"
    said = plan.line().partition("; `")[0].removeprefix("memory, ")
    return said if fits else f"{said}: NOT ENOUGH"


def seconds_known(config: TrainConfig, beside: Path) -> float | None:
    """Of an update, as an earlier run of such settings beside this one's folder measured it."""
    if not beside.is_dir():
        return None
    for run in find_runs([beside], depth=1):
        if (seconds := seconds_per_update(config, run.folder)) is not None:
            return seconds
    return None


def _row(label: str, text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - LABEL, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"{label if n == 0 else '':<{LABEL}}{line}" for n, line in enumerate(lines))
