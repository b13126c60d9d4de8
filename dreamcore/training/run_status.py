"""A run's `status.json`, kept up to date: at every flush of the metrics, and whenever what the run does changes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..backends.protocol import Backend
from ..errors import in_a_line
from ..io.files import disk_trouble
from ..io.names import STATUS
from ..io.progress import Work
from ..io.system import process_started
from ..runs import best
from ..runs.status import State, Status, now, read_status, this_host
from ..track import RunInfo
from ..track.base import Level
from ..track.pace import Pace

HEARTBEAT = 10.0
"""Seconds after which a message, too, has it written: preparing a run can take hours."""


class RunStatus:
    """A tracker, and told besides what trackers are not.  A file that cannot be written ends no run.

    Args:
        warn: told once that it cannot be written.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn, self._warned = warn, False
        self._folder: Path | None = None
        self._pace = Pace(0)
        self._heard = 0.0
        pid = os.getpid()
        self._status = Status(
            state="preparing",
            host=this_host(),
            process=pid,
            process_started=process_started(pid),
            started=now(),
            written=now(),
        )

    def begin(self, folder: Path, update: int, name: str, backend: Backend) -> None:
        """From here on the folder is this run's, which goes on after `update`."""
        earlier = read_status(folder) if update else None
        found, names = best.read(folder), {"pictures", "pictures_update", "measured", "measured_update"}
        kept = earlier.model_dump(include=names) if earlier else {}
        self._folder = folder
        self._write(
            update=update,
            checkpoint=update or None,
            backend=name,
            device=backend.device_name(),
            processes=backend.world.size,
            best=found.update if found else None,
            **kept,
        )

    # -- as a tracker

    def start(self, info: RunInfo) -> None:
        self._pace = Pace(info.total_updates)
        self._write(state="training", total_updates=info.total_updates)

    def update(self, record: Mapping[str, float | int]) -> None:
        self._pace.update(record)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        self._write(measured=finite, measured_update=step)

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        assert self._folder is not None, "begin comes first"
        names = [path.relative_to(self._folder).as_posix() for path in paths]
        self._write(pictures=names, pictures_update=step)

    def message(self, text: str, level: Level = "info") -> None:
        if time.monotonic() - self._heard > HEARTBEAT:
            self._write()

    def close(self, outcome: str) -> None:
        return None  # `ended` says it, and why

    # -- as one who is told of work: a sign of life, as a message is

    def began(self, work: Work) -> None:
        self.message(work.what)

    def changed(self, work: Work) -> None:
        self.message(work.what)

    def finished(self, work: Work, *, failed: bool) -> None:
        self.message(work.what)

    # -- from the loop

    def flushed(self, done: int, memory: int | None, next_flush: int) -> None:
        """The metrics of `done` updates are written, and the next after `next_flush` more at the latest."""
        pace = self._pace
        self._write(
            update=done,
            loss=pace.loss,
            updates_per_second=pace.updates_per_second,
            seconds_left=pace.seconds_left,
            memory_bytes=memory,
            next_within_seconds=next_flush / max(pace.updates_per_second, 1e-9),
        )

    @contextmanager
    def doing(self, state: State, done: int) -> Iterator[None]:
        """Something else than training, after `done` updates; a run that is stopping says that all the while."""
        before = self._status.state, self._status.next_within_seconds
        self._write(state="stopping" if before[0] == "stopping" else state, update=done, next_within_seconds=None)
        yield
        self._write(state=before[0], next_within_seconds=before[1])

    def stopping(self, by: str) -> None:
        """It stops once it has saved."""
        self._write(state="stopping", reason=f"by {by}", next_within_seconds=None)

    def saved(self, update: int) -> None:
        """There is a checkpoint of this update."""
        self._write(checkpoint=update)

    def chosen(self, update: int) -> None:
        """The best checkpoint is of this update."""
        self._write(best=update)

    def ended(self, done: int, stopped_by: str, why: str = "") -> None:
        """The run has finished, or something has stopped it, with all of it saved.

        Args:
            why: it has finished before its last update.
        """
        state: State = "stopped" if stopped_by else "finished"
        reason = f"by {stopped_by}" if stopped_by else why or None
        self._write(state=state, reason=reason, update=done, seconds_left=None, next_within_seconds=None)

    def failed(self, error: BaseException) -> None:
        """The run ends with an error; one that had ended before is what it was."""
        if not self._status.ended:
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else in_a_line(error)
            self._write(state="failed", reason=reason, seconds_left=None, next_within_seconds=None)

    def _write(self, **changes: Any) -> None:
        self._heard = time.monotonic()
        self._status = self._status.model_copy(update={**changes, "written": now()})
        if self._folder is None:
            return
        try:
            self._status.write(self._folder)
        except Exception as error:
            if not self._warned:
                self._warned = True
                self._warn(f"{self._folder / STATUS} cannot be written: {disk_trouble(error) or in_a_line(error)}")


@contextmanager
def told_of_failure(status: Callable[[], RunStatus | None]) -> Iterator[None]:
    """Let a run's status say with which error it ends."""
    try:
        yield
    except BaseException as error:
        if (found := status()) is not None:
            found.failed(error)
        raise
