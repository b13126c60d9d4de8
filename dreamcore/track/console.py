"""The terminal: a progress bar, or plain lines where nobody watches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from .base import Level, RunInfo
from .pace import Pace, speed

SECONDS_BETWEEN_LINES = 10.0
"""Where the output is no terminal (a file, a job's log), lines come no faster than this."""


class Console:
    """Progress and messages on standard error (or `console`); its losses are means over the last 20 updates."""

    def __init__(self, console: RichConsole | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or RichConsole(stderr=True)
        self._clock = clock
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._info: RunInfo | None = None
        self._pace = Pace(0)
        self._next_line = -math.inf

    def start(self, info: RunInfo) -> None:
        self._info, self._pace = info, Pace(info.total_updates)
        if self._live:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}", markup=False))
            self._progress = Progress(*columns, console=self._console, refresh_per_second=4)
            self._task = self._progress.add_task(
                "", total=info.total_updates, completed=info.first_update - 1, state=""
            )
            self._progress.start()

    def update(self, record: Mapping[str, float | int]) -> None:
        assert self._info is not None, "start comes first"
        step = int(record["step"])
        state = self._state(record)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, state=state)
        elif self._clock() >= self._next_line or step == self._info.total_updates:
            self._next_line = self._clock() + SECONDS_BETWEEN_LINES
            self._print(f"update {step}/{self._info.total_updates}  {state}")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._print(f"update {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        if paths:
            self._print(f"update {step}: images of {prompt!r} in {paths[0].parent}")

    def message(self, text: str, level: Level = "info") -> None:
        if level == "warning":
            self._print(f"warning: {text}", style="bold yellow")
        else:
            self._print(text)

    def close(self, outcome: str) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def _state(self, record: Mapping[str, float | int]) -> str:
        """Loss, learning rate, rate and time left, in words."""
        self._pace.update(record)
        left = timedelta(seconds=round(self._pace.seconds_left))
        return f"loss {self._pace.loss:.4f}  lr {record['lr']:.2e}  {speed(self._pace.updates_per_second)}  {left} left"

    def _print(self, text: str, style: str | None = None) -> None:
        # Prompts and paths are the user's: square brackets in them are no markup.  soft_wrap: a log keeps its lines.
        self._console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
