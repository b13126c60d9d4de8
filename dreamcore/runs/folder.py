"""The folder of a run: whose it is, what lies in it, and what may be replaced.

What an earlier run here has written is moved aside, into the records' sub-folder, when a new one begins, and goes when
the new one's model has been published.  Everything else in the folder stays where it is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import ConfigError
from ..formats.later import Later
from ..io.files import (
    disk_trouble,
    explain_disk_errors,
    free_name,
    move,
    numbered,
    settle_tree,
    usable_folder,
    write_atomically,
)
from ..io.locks import BusyError, held
from ..io.names import (
    BEST,
    CONFIG,
    FINAL,
    INDEX,
    LOG,
    LORA_FILE,
    MANIFEST,
    METRICS,
    PADDLE_LORA_FILE,
    RECORDS,
    REPORT,
    REPORT_DATA,
    REPORT_SHEET,
    SAMPLES,
    STATUS,
    SUBJECT,
    VALIDATION,
    lora_name,
)
from ..io.system import fsync
from ..track.files import write_entry
from . import best, checkpoint, reasoned
from .manifest import Manifest
from .requests import Inbox

REPLACED, GOING = "replaced-", "going-"
"""Sub-folders of the records: an earlier run's files, kept until this run's are published; and on their way out."""

RESULTS = (CONFIG, METRICS, VALIDATION, STATUS, LOG, REPORT_DATA, REPORT, REPORT_SHEET)
MODEL_FILES = (INDEX, LORA_FILE, PADDLE_LORA_FILE)
IMAGE_NAMES = {
    SAMPLES: re.compile(r"step-\d{6,}-\d+\.png|asked-\d{6,}-\d+-\d+\.png"),
    SUBJECT: re.compile(r"\d{2,}\.png"),
}
"""Sub-folder -> the names of the images that runs write there."""
HALF_WRITTEN = re.compile(r"\.(.+)\.\d+\.tmp")
"""What a run that was killed leaves of the file that it was writing (`files.write_atomically`)."""


class RunFolder:
    """A run's output folder, held for this process alone until `stack` is left.

    Args:
        path: of the folder.
        components: sub-folders that a finished model brings.

    Raises:
        ConfigError: it cannot be written, or another run is at work in it.
    """

    def __init__(self, path: Path, components: Sequence[str], stack: ExitStack):
        self.path, self._components = path, components
        usable_folder(path, "output_dir")
        try:
            stack.enter_context(held(path))
        except BusyError:
            raise ConfigError(f"output_dir: {path}: another run is at work in it") from None
        except OSError as error:
            raise ConfigError(f"output_dir: {path}: {disk_trouble(error) or error}") from None
        self.requests = Inbox(path)
        self.requests.clear()
        stack.callback(self.requests.close)
        found = Manifest.read(path)
        self.manifest = found or Manifest(path)
        self._known = found is not None
        if self._known:
            self._tidy()

    def _tidy(self) -> None:
        """Finish, or undo, what a killed run was about."""
        if self.manifest.moving:
            with explain_disk_errors(f"moving the earlier run in {self.path} aside"):
                self._move_aside()
        best.put_back(self.path)
        for left in self.manifest.records.iterdir():
            if left.is_dir() and not left.name.startswith(REPLACED):
                shutil.rmtree(left, ignore_errors=True)
        written = {(self.path / name).parent for name in self.manifest.files}
        for folder in (self.manifest.records, self.path, *(self.path / name for name in IMAGE_NAMES), *written):
            for left in folder.glob(".*.tmp"):
                of = HALF_WRITTEN.fullmatch(left.name)
                if of and (self._name(folder / of[1]) in self.manifest.files or folder == self.manifest.records):
                    left.unlink()

    # -- whether a run may begin here

    def check(self, *, continues: bool, may_replace: bool) -> None:
        """Refuse to begin, or to go on, where something would be lost.

        Args:
            continues: the run goes on from one of this folder's checkpoints.
            may_replace: what an earlier run has trained may be moved aside.

        Raises:
            ConfigError: naming what lies in the way.
        """
        if continues and not self._known:
            return  # a run from before there were manifests: its checkpoint says that this folder is its own
        if strangers := self._strangers(with_checkpoints=not continues):
            some = ", ".join(strangers[:5]) + (" …" if len(strangers) > 5 else "")
            raise ConfigError(
                f"output_dir: {self.path}: holds {some}, where this run would write and which no run that is on record "
                f"({RECORDS}/{MANIFEST}) has written; choose another folder, such as {free_name(self.path)}"
            )
        if not continues and not may_replace and holds_training(self.path):
            raise ConfigError(
                f"output_dir: {self.path}: holds a run already; go on with it (--resume_from_checkpoint latest), "
                f"replace it (--overwrite_output_dir), or choose another folder, such as {free_name(self.path)}"
            )

    def _strangers(self, *, with_checkpoints: bool) -> list[str]:
        """Files that lie where runs write their own, and that none has written."""
        places = self._results()
        if with_checkpoints:
            places += [self.path / lora_name(self.path), *self._checkpoint_files()]
        if not self._known:  # afterwards only what bears a published file's very name is in the way: see `publish`
            places += [folder for name in self._components if (folder := self.path / name).exists()]
        return [n for place in places if place.exists() and (n := self._name(place)) not in self.manifest.files]

    def _results(self) -> list[Path]:
        """Where runs write but for checkpoints and components: their files' places, and the images that are there."""
        places = [self.path / name for name in (*RESULTS, *MODEL_FILES)]
        for name, pattern in IMAGE_NAMES.items():
            places += [file for file in sorted((self.path / name).glob("*")) if pattern.fullmatch(file.name)]
        return places

    def _checkpoint_files(self) -> list[Path]:
        return [f for folder in self._checkpoints() for f in checkpoint.files_in(folder)]

    def _checkpoints(self) -> list[Path]:
        best = self.path / BEST
        return [*(folder for _, folder in checkpoint.list_checkpoints(self.path)), *([best] if best.is_dir() else [])]

    def _name(self, place: Path) -> str:
        return place.relative_to(self.path).as_posix()

    # -- beginning

    def clear(self, say: Callable[[str], None]) -> None:
        """Move an earlier run's files aside; from here on the folder is this run's."""
        with explain_disk_errors(f"moving the earlier run in {self.path} aside"):
            if any((self.path / name).exists() for name in self.manifest.files):
                self.manifest.moving = self._new_place()
                self.manifest.finished = None
                self.manifest.write()
                aside = self.manifest.records / self.manifest.moving
                say(f"what a run has written in {self.path} is kept in {aside} until this one is finished")
                self._move_aside()
            self.manifest.own(RESULTS)

    def go_on(self) -> None:
        """From here on the folder is this run's, which goes on from one of its checkpoints."""
        with explain_disk_errors(f"writing {self.manifest.records}"):
            self.manifest.own([*RESULTS, *([] if self._known else self._of_an_older_version())])

    def _of_an_older_version(self) -> list[str]:
        """What a run has written here that kept no records."""
        files = [*self._results(), *self._checkpoint_files()]
        for name in self._components:
            files += [file for file in (self.path / name).rglob("*") if file.is_file()]
        return [self._name(file) for file in files if file.exists()]

    def _new_place(self) -> str:
        taken = {folder.name for folder in self.manifest.records.glob(f"{REPLACED}*")}
        return next(name for k in range(1, len(taken) + 2) if (name := f"{REPLACED}{k}") not in taken)

    def _move_aside(self) -> None:
        """Move every file on record to the place that is on record, or what a killed run has left of them."""
        assert self.manifest.moving
        aside = self.manifest.records / self.manifest.moving
        litter = {self._name(f) for folder in self._checkpoints() for f in checkpoint.litter_in(folder)}
        for name in sorted(self.manifest.files | litter):
            if (self.path / name).is_file():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                move(self.path / name, aside / name)
        self._remove_empty_folders(self.manifest.files)
        self.manifest.files, self.manifest.moving = set(), None
        self.manifest.write()

    def _remove_empty_folders(self, names: set[str]) -> None:
        """Remove the folders of these files that hold nothing any more."""
        folders = {parent for name in names for parent in Path(name).parents if parent.name}
        for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
            if not (self.path / folder).is_symlink():
                with suppress(OSError):
                    (self.path / folder).rmdir()

    # -- writing

    def write_config(self, settings: Mapping[str, Any], reasons: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the resolved configuration; with it `--config` repeats the run.

        Args:
            reasons: why settings have their values; of those that keep them, what stands there already is kept.
        """
        with explain_disk_errors(f"writing {self.path / CONFIG}"):
            write_atomically(self.path / CONFIG, reasoned.write(settings, reasons, self.path / CONFIG))

    def keep_in_log(self, entry: str) -> Path:
        """Add an error's traceback to log.txt, which is there even where the run has not started."""
        self.manifest.own([LOG])
        write_entry(self.path / LOG, "error", entry)
        return self.path / LOG

    def begin_checkpoint(
        self,
        update: int,
        write: Callable[[Path], None],
        state: Mapping[str, Any],
        later: Later,
        say: Callable[[str], None],
    ) -> Callable[[Callable[[str], None]], Path]:
        """`checkpoint.begin`, on record."""
        return checkpoint.begin(self.path, update, write, state, later, say, self.manifest.own)

    def keep_best(
        self, found: best.Best, write: Callable[[Path], None], state: Mapping[str, Any], say: Callable[[str], None]
    ) -> Path:
        """`best.save`, on record."""
        return best.save(self.path, found, write, state, say, self.manifest.own)

    def new_final(self) -> Path:
        """An empty folder beside the results, to be filled and then given to `publish`."""
        folder = self.manifest.records / FINAL
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def publish(self, folder: Path) -> None:
        """Move the finished model's files into the run folder, its index last: only a whole model has one.

        An earlier model of this run goes, and with it what was moved aside for this run.
        """
        settle_tree(folder)
        names = sorted((f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()), key=_index_last)
        earlier = {n for n in self.manifest.files if _is_of_model(n) or n.partition("/")[0] in self._components}
        for name in names:
            if (self.path / name).exists() and name not in earlier:  # it came while the run was at work
                (self.path / name).rename(next(n for n in numbered(self.path / name) if not n.exists()))
        self.manifest.own(names)
        for name in [INDEX] * (INDEX in earlier) + sorted(earlier - set(names)):
            (self.path / name).unlink(missing_ok=True)
        for name in names:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            move(folder / name, self.path / name)
        for parent in {(self.path / name).parent for name in names} | {self.path}:
            fsync(parent)
        self._remove_empty_folders(earlier)
        shutil.rmtree(folder)
        for replaced in self.manifest.records.glob(f"{REPLACED}*"):
            going = replaced.with_name(GOING + replaced.name)
            replaced.rename(going)
            shutil.rmtree(going)

    def finish(self, updates: int, settings: Mapping[str, Any]) -> None:
        """Record that the run has ended with all that it was to write."""
        with explain_disk_errors(f"writing {self.manifest.records}"):
            self.manifest.finished = {"updates": updates, "settings": dict(settings)}
            self.manifest.write()


def holds_training(folder: Path) -> bool:
    """Whether a run has trained in a folder; one that ended among its preparations has not."""
    metrics = folder / METRICS
    trained = metrics.exists() and metrics.stat().st_size > 0
    finished = any((folder / name).exists() for name in MODEL_FILES)
    return trained or finished or bool(checkpoint.list_checkpoints(folder))


def _is_of_model(name: str) -> bool:
    """Whether a file of a run, by its name relative to its folder, is a finished model's; LoRA files bear the folder's
    name, which may have changed."""
    return name in MODEL_FILES or ("/" not in name and name.endswith(".safetensors"))


def _index_last(name: str) -> tuple[bool, str]:
    return name == INDEX, name
