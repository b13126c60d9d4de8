"""The terminal: a progress bar, or plain lines where nobody watches."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from .base import Level, RunInfo

RECENT = 20
"""Updates that the loss and the rate shown are means of: single losses jump with their timesteps."""
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
        self._losses: deque[float] = deque(maxlen=RECENT)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._elapsed = 0.0
        self._next_line = -math.inf

    def start(self, info: RunInfo) -> None:
        self._info = info
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
        state = self._state(step, record)
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

    def _state(self, step: int, record: Mapping[str, float | int]) -> str:
        """Loss, learning rate, rate and time left, in words."""
        assert self._info is not None
        if "skipped" not in record:  # its loss may be infinite
            self._losses.append(record["loss"])
        self._recent.append(record["seconds"])
        self._elapsed += record["seconds"]
        loss = sum(self._losses) / max(1, len(self._losses))
        rate = len(self._recent) / max(sum(self._recent), 1e-9)
        per_update = self._elapsed / (step - self._info.first_update + 1)
        left = timedelta(seconds=round(per_update * (self._info.total_updates - step)))
        speed = f"{rate:.2f} updates/s" if rate >= 1 else f"{1 / rate:.2f} s/update"
        return f"loss {loss:.4f}  lr {record['lr']:.2e}  {speed}  {left} left"

    def _print(self, text: str, style: str | None = None) -> None:
        # Prompts and paths are the user's: square brackets in them are no markup.  soft_wrap: a log keeps its lines.
        self._console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
