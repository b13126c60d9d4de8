"""Stopping on request: the first signal asks the run to finish its update and save, the second stops it at once.

`dreambooth stop` asks for what SIGTERM asks for, and no process needs to know another's number or be on its machine.
So does a callback, and one that has failed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from enum import IntEnum
from types import FrameType
from typing import Self

STOPPING = (signal.SIGINT, signal.SIGTERM)
COMMAND = "dreambooth stop"


class Asker(IntEnum):
    """Who has asked to stop; where several ranks have heard of several, the last of these."""

    SIGNAL = 0
    OUTSIDE = 1
    """The command."""
    CALLBACK = 2
    FAILURE = 3
    """Of a callback."""


class StopRequest:
    """A context in which Ctrl-C and SIGTERM set `signal` and do not interrupt.

    Args:
        say: told once, when the first signal arrives.
    """

    def __init__(self, say: Callable[[str], None]):
        self.signal = 0
        self.asker = Asker.SIGNAL
        self.words = ""
        """Which callback asked or failed, and why; on the main process, until the ranks have agreed."""
        self._say = say
        self._before: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal, as a shell reports it; 0 without one."""
        return 128 + self.signal if self.signal else 0

    @property
    def by(self) -> str:
        """What asked, in words; empty where nothing did."""
        if self.asker is Asker.SIGNAL:
            return signal.Signals(self.signal).name if self.signal else ""
        return COMMAND if self.asker is Asker.OUTSIDE else self.words

    def ask(self, asker: Asker, words: str = "") -> None:
        """Ask as the command does, unless somebody has asked before; a callback's failure is no mere wish."""
        if not self.signal or (asker is Asker.FAILURE and self.asker is not asker):
            self.signal, self.asker, self.words = self.signal or signal.SIGTERM, asker, words
            self._say(f"{self.by}: this update is finished and saved first; Ctrl-C stops at once")

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        self._say("stopping: this update is finished and saved first; once more stops at once")
