"""`checkpoint-best/`: the checkpoint of the update whose measurement was best, kept however many others go.

It is a checkpoint like the others, of the same files (as far as the disk has second names for them), whose `state.json`
says besides by which measure it was the best.  A newer best is written whole before it takes the place, so that a run
that is killed leaves one whole, or the place empty: then the one before lies among the records, and is put back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..io.files import explain_disk_errors, settle_tree, wait_for_room
from ..io.names import BEST, RECORDS
from ..io.system import fsync
from .checkpoint import FORMAT, hashes, read_state, vouch

MEASURES = {
    "validation_loss": "the loss on held-out photographs",
    "subject": "likeness to the photographs",
    "words": "truth to the prompt",
    "both": "the geometric mean of likeness to the photographs and truth to the prompt",
}
"""What can choose the best checkpoint -> its name in words; of the first the lowest is best, of others the highest."""
_BEFORE = f"{BEST}.old"


@dataclass(frozen=True)
class Best:
    """Which update was the best, and why."""

    update: int
    by: str
    """The measure, as `best_by` calls it."""
    value: float
    before: float | None = None
    """The measure before training; None where it was not taken."""

    @property
    def words(self) -> str:
        """Why it is the best."""
        which = "lowest" if self.by == "validation_loss" else "highest"
        began = "" if self.before is None else f", {self.before:.4g} before training"
        return f"{MEASURES.get(self.by, self.by)} is {which} there: {self.value:.4g}{began}"

    def beaten_by(self, value: float) -> bool:
        """Whether a measurement is better; one that is as good comes too late."""
        return value < self.value if self.by == "validation_loss" else value > self.value


def read(run: Path) -> Best | None:
    """Which update a run's best checkpoint is of; None where there is none, or none that can be read."""
    try:
        said = read_state(run / BEST)["best"]
        before = None if said["before"] is None else float(said["before"])
        return Best(int(said["update"]), str(said["by"]), float(said["value"]), before)
    except (RunError, KeyError, TypeError, ValueError, AttributeError):
        return None


def save(
    run: Path,
    best: Best,
    write: Callable[[Path], None],
    state: Mapping[str, Any],
    say: Callable[[str], None] = lambda text: None,
    record: Callable[[list[str]], None] = lambda names: None,
) -> Path:
    """Write `checkpoint-best` in the place of the one that is there, of the files of this update's checkpoint where it
    has one.

    Args:
        write, state, say, record: as for `checkpoint.save`.

    Raises:
        RunError: the disk is full or cannot be written; the best one before is intact.
    """
    target, beside = run / BEST, run / RECORDS / BEST

    def attempt() -> None:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            content = _linked(run / f"checkpoint-{best.update}", beside)
            if content is None:
                write(beside)
                content = {"format": FORMAT, "update": best.update, **state, "files": hashes(beside)}
            names = vouch(beside, {**content, "best": asdict(best)})
            record([f"{BEST}/{name}" for name in names])
            settle_tree(beside)
            _put(beside, target, run / RECORDS / _BEFORE)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise

    with explain_disk_errors(f"writing {target}"):
        wait_for_room(attempt, f"writing {target}", say)
    return target


def _linked(checkpoint: Path, folder: Path) -> dict[str, Any] | None:
    """Give the files of a checkpoint second names in a folder (copies, on a disk without); returns its state.

    None where there is no such checkpoint.
    """
    if not checkpoint.is_dir():
        return None
    state = read_state(checkpoint)
    for name in state["files"]:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(checkpoint / name, place)
        except OSError:
            shutil.copyfile(checkpoint / name, place)
    return state


def _put(folder: Path, target: Path, before: Path) -> None:
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        os.replace(target, before)
    os.replace(folder, target)
    fsync(target.parent)
    shutil.rmtree(before, ignore_errors=True)


def put_back(run: Path) -> None:
    """Undo what a run that was killed between two renamings has left."""
    before = run / RECORDS / _BEFORE
    if before.is_dir() and not (run / BEST).exists():
        os.replace(before, run / BEST)
