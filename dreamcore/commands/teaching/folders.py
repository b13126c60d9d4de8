"""Where a run's results go: a new folder named after the photographs'; and runs of the same that have not ended."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...config.files import read_config_file
from ...data.archive import looks_zipped
from ...errors import ConfigError
from ...io.files import free_name
from ...io.names import CONFIG
from ...runs.checkpoint import list_checkpoints
from ...runs.folder import holds_training
from ...runs.watching import WatchedRun, look_at

ENDINGS = ("lora", "model")
"""Of the folders' names: what comes out."""


def new_folder(photos: Path, class_word: str, *, lora: bool) -> Path:
    """A folder in the working folder that is not there yet, dog-lora, or dog-lora-2; or one in which a run of the same
    was prepared, and ended before its first update: what it has made is of use, class images above all."""
    folder = Path(f"{_stem(photos)}-{ENDINGS[0] if lora else ENDINGS[1]}")
    for one in _earlier(photos):
        run = look_at(one) if one.name.startswith(folder.name) and _teaches(one, photos, class_word) else None
        if run is not None and not run.running and not holds_training(one):
            return one
    return free_name(folder) if os.path.lexists(folder) else folder


def unfinished(photos: Path, class_word: str, given: Path | None) -> WatchedRun | None:
    """The latest run that has taught the same and can be gone on with; None where there is none.

    Args:
        given: the run's folder, where the user names it.

    Raises:
        ConfigError: one is at work.
    """
    folders = [given] if given is not None else list(_earlier(photos))
    found = [run for folder in folders if (run := look_at(folder)) and _teaches(folder, photos, class_word)]
    for run in found:
        if run.running:
            raise ConfigError(
                f"output_dir: a run of these photographs is at work in {run.folder} ({run.status.progress}); "
                f"`dreambooth runs` shows it, `dreambooth stop {run.folder}` stops it once it has saved"
            )
    left = [run for run in found if run.state != "finished" and list_checkpoints(run.folder)]
    return max(left, key=lambda run: run.status.written, default=None)


def _earlier(photos: Path) -> Iterator[Path]:
    """The folders here that `new_folder` has named after the photographs'."""
    name = re.compile(rf"{re.escape(_stem(photos))}-(?:{'|'.join(ENDINGS)})(?:-\d+)?")
    for folder in sorted(Path().iterdir()):
        if name.fullmatch(folder.name) and folder.is_dir():
            yield folder


def _teaches(folder: Path, photos: Path, class_word: str) -> bool:
    """Whether a folder's run has learned these photographs as this class."""
    try:
        settings: dict[str, Any] = read_config_file(folder / CONFIG)
    except ConfigError:
        return False
    same = Path(str(settings.get("instance_data_dir"))) == photos.resolve()
    return same and settings.get("class_word", class_word) == class_word


def _stem(photos: Path) -> str:
    """The name that the photographs go by."""
    name = photos.resolve().name
    return (Path(name).stem if looks_zipped(photos) else name) or "photographs"
