"""What is under way, on standard error: bars in a terminal, plain lines where there is none.

Nothing is shown of what takes less than a second.  What a terminal shows lasts until the work has ended, and then one
line says how long it took, as in a log.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import ParamSpec, TypeVar

from rich.console import Console as RichConsole
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..io.progress import Work, showers, told
from .base import Level
from .verbosity import SAID, current

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE, PATIENCE_OF_A_LOG = 1.0, 3.0
"""Seconds after which work is shown; a bar goes again, and a line stays."""
LASTING = 5.0
"""Seconds from which on a line stays in the place of a bar."""
SECONDS_BETWEEN_LINES = 10.0
"""Where the output is no terminal (a file, a job's log), lines come no faster than this."""
BAR = 40
"""Most letters of a bar."""
SHORTEST_BAR = 8


class _OwnConsole(RichConsole):
    """Standard error.  The cursor is never hidden: whatever ends the process, nobody needs to show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class Display:
    """Shows work (`io.progress`) and prints lines.

    Args:
        console: standard error where none is given.
        patience: seconds after which work is shown, in place of the usual ones.
    """

    def __init__(
        self,
        console: RichConsole | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float | None = None,
    ) -> None:
        self._console = console or _OwnConsole(stderr=True)
        self.clock = clock
        self.is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        usual = PATIENCE if self.is_live else PATIENCE_OF_A_LOG
        self._patience = usual if patience is None else patience
        self.verbosity = current()
        self._lock = threading.RLock()
        self._waiting: dict[Work, threading.Timer | None] = {}
        self._shown: dict[Work, float] = {}
        """Work -> when its next line is due."""
        self._live: Live | None = None

    # -- lines

    def say(self, text: str, level: Level = "info") -> None:
        """Print a line, if it is of those that are said."""
        if level in SAID[self.verbosity]:
            warns = level == "warning"
            self._print(f"warning: {text}" if warns else text, "bold yellow" if warns else None)

    def _print(self, text: str, style: str | None = None) -> None:
        # Prompts and paths are the user's: square brackets in them are no markup.  soft_wrap: a log keeps its lines.
        # A style of `print` itself would be the bars' too, which it prints anew below.
        self._console.print(Text(text, style or ""), highlight=False, soft_wrap=True)

    # -- as one who is told of work

    def began(self, work: Work) -> None:
        if self.verbosity == "quiet":
            return
        with self._lock:
            self._waiting[work] = None
            if self._patience <= 0:
                self.show(work)
                return
            timer = self._waiting[work] = threading.Timer(self._patience, self.show, (work,))
            timer.daemon = True
            timer.start()

    def changed(self, work: Work) -> None:
        if self.is_live or work not in self._shown:
            return
        with self._lock:
            if work.done != work.total and self.clock() >= self._shown.get(work, math.inf):
                self._shown[work] = self.clock() + SECONDS_BETWEEN_LINES
                self._print(in_a_line(work))

    def finished(self, work: Work, *, failed: bool) -> None:
        with self._lock:
            timer = self._waiting.pop(work, None)
            if timer is not None:
                timer.cancel()
            shown = self._shown.pop(work, None) is not None
            worth_a_line = shown and (not self.is_live or work.seconds >= LASTING)
            if not failed and (worth_a_line or self.verbosity == "verbose"):
                self._print(ended_in_words(work))
            if not self._shown:
                self._stop()

    def show(self, work: Work) -> None:
        """Show it from now on, if it has not ended: as a bar, or as a first line."""
        with self._lock:
            if self._waiting.pop(work, self) is self:
                return
            self._shown[work] = self.clock() + SECONDS_BETWEEN_LINES
            if not self.is_live:
                self._print(in_a_line(work))
            elif self._live is None:
                # Standard output may go to a file while this is a terminal: it is left alone then.
                to_screen = sys.stdout.isatty()
                self._live = Live(
                    get_renderable=self.bars,
                    console=self._console,
                    refresh_per_second=4,
                    transient=True,
                    redirect_stdout=to_screen,
                )
                self._live.start(refresh=True)

    def close(self) -> None:
        """Show nothing more of what is still under way."""
        with self._lock:
            for work in [*self._waiting, *self._shown]:
                self.hide(work)

    def hide(self, work: Work) -> None:
        """Show it no more, and say nothing of it."""
        self.finished(work, failed=True)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def bars(self) -> Table:
        """A line for each work: what it is, a bar, how far it is; it never takes a second line."""
        rows = [(work, Text(work.what)) for work in list(self._shown)]
        width = self._console.width - 1
        table = Table.grid(padding=(0, 1), pad_edge=False)
        for _ in range(3):
            table.add_column(no_wrap=True, overflow="ellipsis")
        named = min(max((name.cell_len for _, name in rows), default=0), width // 3)
        fitted = [fit(parts(work), width - named - SHORTEST_BAR - 2, 2) for work, _ in rows]
        bar = min(BAR, width - named - 2 - max(map(len, fitted), default=0))
        if bar < SHORTEST_BAR:
            fitted = [fit(parts(work), width - named - 2, 1) for work, _ in rows]
        for (work, name), words in zip(rows, fitted, strict=True):
            name.truncate(named, overflow="ellipsis")
            bars = bar >= SHORTEST_BAR  # where there is no place, words matter more
            drawn = ProgressBar(work.total, work.done, width=bar, pulse=not work.total) if bars else ""
            table.add_row(name, drawn, Text(words))
        return table


def parts(work: Work) -> list[str]:
    """How far it is, in words: the count, notes, and the time that is left, or was taken where that is not known."""
    count = [counted(work)] if work.done or work.total is not None else []
    if work.unit == "bytes" and work.done and work.total:
        count.append(f"{work.done / max(work.seconds, 1e-9) / 10**6:.1f} MB/s")
    left = f"{duration(work.left)} left" if work.left is not None else duration(work.seconds)
    return [*count, *work.notes, left]


def fit(words: Sequence[str], width: int, least: int) -> str:
    """The words, without those for which there is no place: the third first, the last never; but `least` of them."""
    kept = list(words)
    while len("  ".join(kept)) > width and len(kept) > least:
        kept.pop(min(2, max(0, len(kept) - 2)))
    return "  ".join(kept)


def in_a_line(work: Work) -> str:
    """The work as a line of a log."""
    return f"{work.what}: {'  '.join(parts(work))}" if work.done or work.total is not None else f"{work.what} …"


def ended_in_words(work: Work) -> str:
    """That it has ended, and how long it took."""
    count = f"{counted(work)}, " if work.done or work.total is not None else ""
    return f"{work.what}: {count}done in {f'{work.seconds:.1f} s' if work.seconds < 10 else duration(work.seconds)}"


def counted(work: Work) -> str:
    """12 of 100, or 1.2 of 3.4 GB."""
    if work.unit == "bytes":
        scale, unit = next(((s, u) for s, u in _UNITS if max(work.done, work.total or 0) >= s), _UNITS[-1])
        done, total = (f"{n / scale:.1f}" for n in (work.done, work.total or 0))
        return f"{done} of {total} {unit}" if work.total else f"{done} {unit}"
    return f"{work.done} of {work.total}" if work.total is not None else str(work.done)


_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def duration(seconds: float) -> str:
    """0:01:20."""
    return str(timedelta(seconds=round(seconds)))


def current_display() -> Display:
    """The one that is told of work here; another, where there is none."""
    return next((shower for shower in showers() if isinstance(shower, Display)), None) or Display()


@contextmanager
def showing(*, main_process: bool = True) -> Iterator[None]:
    """Show the work within, unless that is done already, or another process is the one that speaks."""
    if not main_process or any(isinstance(shower, Display) for shower in showers()):
        yield
        return
    display = Display()
    try:
        with told(display):
            yield
    finally:
        display.close()


def shows_progress(function: Callable[P, T]) -> Callable[P, T]:
    """A function that shows what it is at."""

    @functools.wraps(function)
    def shown(*args: P.args, **kwargs: P.kwargs) -> T:
        with showing():
            return function(*args, **kwargs)

    return shown
