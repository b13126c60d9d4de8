"""Checkpoints that are written beside training: their numbers are copied at the update, a thread writes them.

A checkpoint is whole or absent as ever.  The next one waits for it, and so does the end of a run; what fails there is
the run's failure, which is raised at the next update.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from ..formats.later import Later
from ..placement.machine import host_free

WORTH = 16 * 2**20
"""Bytes from which on a thread is worth while: fewer are written in a few hundredths of a second."""
BESIDE_WEIGHTS = 256 * 2**20
"""Bytes that are copied at most where networks compute in the host's memory too, which they may need themselves."""


def room(*, on_host: bool) -> Later:
    """What takes the files of a checkpoint: of the memory that is free no more than half."""
    free = (host_free() or 0) // 2
    return Later(min(free, BESIDE_WEIGHTS) if on_host else free, copies=on_host)


class Saving:
    """The checkpoint that is being written, if there is one.

    Args:
        say: told what the thread has to say, on the thread that trains.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say, self._said = say, SimpleQueue[str]()
        self._thread: ThreadPoolExecutor | None = None
        self._written: Future[Path] | None = None
        self._then: Callable[[Path], None] | None = None

    def begin(self, write: Callable[[Callable[[str], None]], Path], then: Callable[[Path], None]) -> None:
        """Let a thread write; none does at the time.

        Args:
            write: told how to say something; returns the folder.
            then: what is to be done with it, on the thread that trains.
        """
        assert self._written is None, "one at a time"
        self._thread = self._thread or ThreadPoolExecutor(1, "saving")
        self._written, self._then = self._thread.submit(write, self._said.put), then

    def poll(self) -> None:
        """See to what the thread has said and done.

        Raises:
            RunError: it could not write.
        """
        with suppress(Empty):
            while True:
                self._say(self._said.get_nowait())
        if self._written is None or not self._written.done() or self._then is None:
            return
        written, then, self._written, self._then = self._written, self._then, None, None
        then(written.result())

    def wait(self) -> None:
        """Let the checkpoint be whole, or raise what kept it from that."""
        while self._written is not None:
            wait([self._written], 0.2)  # and not for ever: it may have something to say
            self.poll()

    def close(self) -> None:
        """Let the thread end what it writes; where the run fails, that is what is told."""
        if self._thread is not None:
            self._thread.shutdown()
