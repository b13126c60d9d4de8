"""Runs as they are seen from outside: what each is doing, whether it is still there, and which runs there are.

Whether a run is there is told by the lock on its folder.  Where the disk keeps none, or does not share them with the
run's machine, it is told by the process, on this machine, or by how long its status has been silent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..config.files import read_config_file
from ..errors import ConfigError
from ..io.locks import is_held
from ..io.names import CONFIG, LOG, METRICS, RECORDS, SAMPLES, SUBJECT
from ..io.system import process_started
from ..track.files import run_ended
from ..track.metrics import read_lines
from ..track.pace import RECENT, Pace
from .checkpoint import list_checkpoints
from .manifest import Manifest
from .status import State, Status, now, read_status, this_host

SILENT = timedelta(minutes=1)
"""A status that is so much older than when it was to be written anew is silent, five times that time being gone."""
SILENT_UNKNOWN = timedelta(minutes=15)
"""Where it does not say when that was: while a run is prepared, looks at its model, or saves."""
SAME_PROCESS = 60.0
"""Seconds between two tellings of when one process was started: a machine's clock may have been set meanwhile."""
DEPTH = 3
"""Levels of sub-folders that are looked through."""
_OWN = (SAMPLES, SUBJECT)
"""Folders of a run in which there is none."""


@dataclass(frozen=True)
class WatchedRun:
    """A run as it is seen from outside."""

    folder: Path
    status: Status
    """With the state that it is seen in: `dead` and `silent` among them."""

    @property
    def state(self) -> State:
        """What it is doing."""
        return self.status.state

    @property
    def said(self) -> str:
        """Which run, what it is doing and how far it is, in words."""
        reason = f" ({self.status.reason})" if self.status.reason else ""
        return f"{self.folder}: {self.state}{reason}, {self.status.progress}"

    @property
    def running(self) -> bool:
        """Whether more may come of it."""
        return not self.status.ended

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"folder": str(self.folder), **self.status.model_dump(mode="json", exclude={"format"})}


def find_runs(folders: Sequence[Path], depth: int = DEPTH) -> list[WatchedRun]:
    """The runs in folders and below them: those that are at work first, then the latest first.

    Args:
        depth: levels of sub-folders that are looked through; links to folders are not followed.

    Raises:
        ConfigError: a folder that is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
    places = dict.fromkeys(place for folder in folders for place in _folders(folder, depth))
    found = [run for place in places if (run := look_at(place)) is not None]
    return sorted(found, key=lambda run: (run.running, run.status.written), reverse=True)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth == 0:
        return
    with suppress(OSError):  # a folder that is closed
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            name = entry.name
            inside = name.startswith((".", "checkpoint-")) or name in _OWN
            if not inside and entry.is_dir(follow_symlinks=False):
                yield from _folders(folder / name, depth - 1)


def look_at(folder: Path) -> WatchedRun | None:
    """The run in a folder; None where there is none."""
    held = is_held(folder)
    status = read_status(folder) or _of_an_older_version(folder, held)
    return None if status is None else WatchedRun(folder, _judged(status, held))


def _judged(status: Status, held: bool | None) -> Status:
    """What a run has written, with the state that it is in now."""
    here = status.host in (this_host(), None)
    gone = here and status.process is not None and not _lives(status.process, status.process_started)
    if held and gone:  # the folder is another process's by now
        begun = {"state": "preparing", "reason": "begins, or goes on", "process": None, "next_within_seconds": None}
        return status.model_copy(update=begun)
    if status.ended or held:
        return status
    last = status.written.astimezone()
    if here and (held is False or gone):
        return _changed(status, "dead", f"its process is gone without a word, last heard of {last:%Y-%m-%d %H:%M:%S}")
    if not here and now() - last > _patience(status):
        reason = f"on {status.host}, silent since {last:%Y-%m-%d %H:%M:%S}, while {status.state}"
        return _changed(status, "silent", reason)
    return status


def _changed(status: Status, state: State, reason: str) -> Status:
    return status.model_copy(update={"state": state, "reason": reason, "seconds_left": None})


def _lives(process: int, started: float | None) -> bool:
    found = process_started(process)
    return found is not None and (started is None or abs(found - started) < SAME_PROCESS)


def _patience(status: Status) -> timedelta:
    if status.next_within_seconds is None:
        return SILENT_UNKNOWN
    return SILENT + timedelta(seconds=5 * status.next_within_seconds)


def _of_an_older_version(folder: Path, held: bool | None) -> Status | None:
    """The status of a run that has written none, from its metrics, its records and its log."""
    if not (folder / METRICS).is_file() or not ((folder / RECORDS).is_dir() or (folder / CONFIG).is_file()):
        return None
    records, manifest = read_lines(folder / METRICS), Manifest.read(folder)
    total = _total(folder)
    pace = Pace(total or 0)
    for record in records[-RECENT:]:
        if all(isinstance(record.get(name), int | float) for name in ("step", "loss", "seconds")):
            pace.update(record)
    outcome = "training" if held else run_ended(folder / LOG)
    if not held and manifest is not None and manifest.finished is not None:
        outcome, total = "finished", int(manifest.finished["updates"])
    checkpoints = list_checkpoints(folder)
    status = Status(
        version="",
        state="training",
        update=int(records[-1]["step"]) if records else 0,
        total_updates=total,
        loss=pace.loss if records else None,
        updates_per_second=pace.updates_per_second if records else None,
        seconds_left=pace.seconds_left if records and total and held else None,
        checkpoint=checkpoints[-1][0] if checkpoints else None,
        written=datetime.fromtimestamp((folder / METRICS).stat().st_mtime).astimezone().replace(microsecond=0),
    )
    known: dict[str | None, State] = {"training": "training", "finished": "finished", "stopped": "stopped"}
    known["failed"] = "failed"
    return status if outcome not in known else status.model_copy(update={"state": known[outcome]})


def _total(folder: Path) -> int | None:
    """Updates of the whole run, where its configuration says."""
    with suppress(ConfigError):
        total = read_config_file(folder / CONFIG).get("max_train_steps")
        return total if isinstance(total, int) else None
    return None
