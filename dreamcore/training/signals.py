"""Stopping on request: the first signal asks the run to finish its update and save, the second stops it at once.

`dreambooth stop` asks for what SIGTERM asks for, and no process needs to know another's number or be on its machine.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

STOPPING = (signal.SIGINT, signal.SIGTERM)
COMMAND = "dreambooth stop"


class StopRequest:
    """A context in which Ctrl-C and SIGTERM set `signal` and do not interrupt.

    Args:
        say: told once, when the first signal arrives.
    """

    def __init__(self, say: Callable[[str], None]):
        self.signal = 0
        self.commanded = False
        """Whether the command asked, and no signal."""
        self._say = say
        self._before: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal, as a shell reports it; 0 without one."""
        return 128 + self.signal if self.signal else 0

    @property
    def by(self) -> str:
        """What asked, in words; empty where nothing did."""
        return COMMAND if self.commanded else signal.Signals(self.signal).name if self.signal else ""

    def command(self) -> None:
        """Ask as the command does."""
        if not self.signal:
            self.signal, self.commanded = signal.SIGTERM, True
            self._say(f"{COMMAND}: this update is finished and saved first; Ctrl-C stops at once")

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
