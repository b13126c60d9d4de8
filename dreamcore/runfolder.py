"""The folder of a run: whose it is, what lies in it, and what may be replaced."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from . import checkpoint
from .errors import ConfigError
from .files import disk_trouble, explain_disk_errors, fsync, settle_tree, usable_folder, write_atomically
from .layouts import PADDLE_LORA_FILE
from .modelfolder import INDEX

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples"
SUBJECT = "subject"
"""Copies of photographs that are no files, for the report."""
REPORT_DATA = "report_data.json"
FINAL = ".final"

RESULTS = (CONFIG, METRICS, "validation.jsonl", "log.txt", REPORT_DATA, "report.html", "report.png")


class RunFolder:
    """A run's output folder, held for this process alone until `release`.

    Args:
        components: sub-folders that a finished model brings.

    Raises:
        ConfigError: it cannot be written, another run is at work in it, or it holds a finished or broken-off run.
    """

    def __init__(self, path: Path, components: Sequence[str], *, resume: bool, overwrite: bool):
        self.path, self._components = path, components
        self._lock: IO[str] | None = None
        usable_folder(path, "output_dir")
        try:
            self._lock = (path / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"output_dir: {path}: another run is at work in it") from None
        except OSError as error:
            raise ConfigError(f"output_dir: {path}: {disk_trouble(error) or error}") from None
        checkpoint.remove_leftovers(path)
        if self.holds_run() and not (resume or overwrite):
            self.release()
            raise ConfigError(
                f"output_dir: {path}: holds a run already; go on with it (--resume_from_checkpoint latest), replace it "
                "(--overwrite_output_dir), or choose another folder"
            )

    def holds_run(self) -> bool:
        """Whether a run has been at work here."""
        names = (CONFIG, METRICS, INDEX, checkpoint.LORA_FILE, SAMPLES, *self._components)
        return any((self.path / n).exists() for n in names) or bool(checkpoint.list_checkpoints(self.path))

    def clear(self) -> None:
        """Remove an earlier run's results; whatever else lies in the folder stays."""
        for _, folder in checkpoint.list_checkpoints(self.path):
            shutil.rmtree(folder)
        for name in (*self._components, SAMPLES, SUBJECT, FINAL):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (*RESULTS, INDEX, checkpoint.LORA_FILE, PADDLE_LORA_FILE):
            (self.path / name).unlink(missing_ok=True)

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write the resolved configuration; with it `--config` repeats the run."""
        import yaml

        text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
        with explain_disk_errors(f"writing {self.path / CONFIG}"):
            write_atomically(self.path / CONFIG, text)

    def new_final(self) -> Path:
        """An empty folder beside the results, to be filled and then given to `publish`."""
        folder = self.path / FINAL
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def publish(self, folder: Path) -> None:
        """Move the finished model's files into the run folder, its index last: only a whole model has one."""
        settle_tree(folder)
        (self.path / INDEX).unlink(missing_ok=True)
        for item in sorted(folder.iterdir(), key=lambda f: f.name == INDEX):
            target = self.path / item.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(item, target)
        folder.rmdir()
        fsync(self.path)

    def release(self) -> None:
        """Let others use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
