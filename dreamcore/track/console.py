"""The terminal's part of a run: updates as a bar, or as plain lines where nobody watches, and messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..io.progress import Work
from .base import Level, RunInfo
from .display import SECONDS_BETWEEN_LINES, Display, current_display, duration
from .pace import Pace, speed


class Console:
    """Progress and messages on `display`, which shows other work too; its losses are means over the last 20 updates."""

    def __init__(self, display: Display | None = None) -> None:
        self._display = display or current_display()
        self._updates: Work | None = None
        self._total = 0
        self._pace = Pace(0)
        self._next_line, self._last = -math.inf, ""

    def start(self, info: RunInfo) -> None:
        self._total, self._pace = info.total_updates, Pace(info.total_updates)
        if self._display.is_live:
            self._updates = Work("training", info.total_updates)
            self._updates.done = info.first_update - 1
            self._display.began(self._updates)

    def update(self, record: Mapping[str, float | int]) -> None:
        assert self._total, "start comes first"
        self._pace.update(record)
        step, state = int(record["step"]), self._state(record)
        self._last = f"update {step}/{self._total}  {'  '.join(state)}"
        if self._updates is not None:
            self._updates.done, self._updates.notes = step, state
            self._updates.seconds_left = self._pace.seconds_left
            if step == self._total:
                self._end_bar()
        elif self._display.clock() >= self._next_line or step == self._total:
            self._next_line = self._display.clock() + SECONDS_BETWEEN_LINES
            self._display.say(f"{self._last}  {duration(self._pace.seconds_left)} left")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._display.say(f"update {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        if paths:
            self._display.say(f"update {step}: images of {prompt!r} in {paths[0].parent}")

    def message(self, text: str, level: Level = "info") -> None:
        if level == "result":
            self._end_bar()
        self._display.say(text, level)

    def close(self, outcome: str) -> None:
        self._end_bar()

    def _end_bar(self) -> None:
        """Leave a line in the place of the bar."""
        updates, self._updates = self._updates, None
        if updates is not None:
            self._display.hide(updates)
            if self._last:
                self._display.say(self._last)

    def _state(self, record: Mapping[str, float | int]) -> tuple[str, ...]:
        """Loss, learning rate and rate, in words."""
        rate = speed(self._pace.updates_per_second)
        return f"loss {self._pace.loss:.4f}", f"lr {record['lr']:.2e}", rate
