"""`status.json`: what a run is doing, for whoever looks from outside.  docs/watching.md describes it for users."""

from __future__ import annotations

import platform
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from ..io.files import write_atomically
from ..io.names import STATUS
from ..version import __version__

State = Literal[
    "preparing", "training", "validating", "saving", "stopping", "stopped", "finished", "failed", "dead", "silent"
]
"""The last two are never written: who looks at a run says so of one whose process is gone, or is not heard of."""
ENDED: tuple[State, ...] = ("stopped", "finished", "failed", "dead")


def now() -> datetime:
    """With the zone of this machine, in whole seconds."""
    return datetime.now().astimezone().replace(microsecond=0)


class Status(BaseModel):
    """What a run is doing.  No prompt, no setting and no token is in it; a reason can name files."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    format: Literal[1] = 1
    version: str = __version__
    state: State
    reason: str | None = None
    """Why it has stopped or failed, in words."""
    update: int = 0
    """Updates made; those measured, while it trains."""
    total_updates: int | None = None
    """Of the whole run; None until that is known."""
    loss: float | None = None
    """Mean of the last 20 updates."""
    updates_per_second: float | None = None
    """Of the last 20 updates, without what was done in between."""
    seconds_left: float | None = None
    """Of training."""
    memory_bytes: int | None = None
    """The most that was held since the first update: of the device, or of the process where it computes on the host."""
    backend: str | None = None
    device: str | None = None
    processes: int = 1
    """That train together."""
    checkpoint: int | None = None
    """The update of the newest checkpoint that this run has written, or goes on from."""
    pictures: list[str] = []
    """The last validation's images, in the run's folder."""
    pictures_update: int | None = None
    """The update that they were made after."""
    measured: dict[str, float | None] = {}
    """The last validation's measurements: `validation_loss`, and scores of its images."""
    measured_update: int | None = None
    """The update that they were made after."""
    best: int | None = None
    """The update that `checkpoint-best` is of."""
    host: str | None = None
    process: int | None = None
    """Its number on that host; of several processes the one that writes."""
    process_started: float | None = None
    """Seconds since 1970, by which it is told from a later one of the same number."""
    started: AwareDatetime | None = None
    written: AwareDatetime
    next_within_seconds: float | None = None
    """How long after `written` this file is written anew, as far as that is known."""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ENDED

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return f"update {self.update}" + (f" of {self.total_updates}" if self.total_updates is not None else "")

    def write(self, folder: Path) -> None:
        """Write it into a run's folder: at every moment there is a whole one there, the last one or this.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        write_atomically(folder / STATUS, self.model_dump_json(indent=1), settle=False)


def read_status(folder: Path) -> Status | None:
    """What the run in a folder has written last; None where there is none, or none that can be read."""
    try:
        return Status.model_validate_json((folder / STATUS).read_bytes())
    except (OSError, ValidationError):
        return None


def this_host() -> str:
    """This machine's name."""
    return platform.node()
