"""Writing that survives a crash: a file or a folder is there complete, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError, RunError
from .io.system import fsync as fsync

AGAIN = "give the command again"
"""What to do after a disk error of a command that keeps no checkpoints."""


def settle_tree(folder: Path) -> None:
    """Give every file below the mode that the user's umask asks for, and force all of it onto the disk.

    (safetensors writes files that only their owner can read.)
    """
    umask = os.umask(0)
    os.umask(umask)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(0o666 & ~umask)
        fsync(path)
    fsync(folder)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file beside its place and rename it into place once it is on the disk."""
    raw = data.encode("utf-8") if isinstance(data, str) else data
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    fsync(path.parent)


def usable_folder(folder: Path, setting: str) -> None:
    """Make a folder that a setting names, where it is not there, before anything costly is done.

    Raises:
        ConfigError: it is a file, or cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{setting}: {folder}: is a file; expected a folder, or a name for a new one") from None
    except OSError as error:
        raise ConfigError(
            f"{setting}: {folder}: {disk_trouble(error) or error.strerror}; choose a folder that can be written"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{setting}: {folder}: permission denied; choose a folder that can be written")


def usable_file(file: Path, setting: str) -> None:
    """Refuse the name of a file that cannot be written, before anything costly is done.

    Raises:
        ConfigError: it is a folder, or lies in one that cannot be made or written.
    """
    if file.is_dir():
        raise ConfigError(f"{setting}: {file}: is a folder; expected the name of a file")
    usable_folder(file.parent, setting)


@contextmanager
def folder_in_place(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `target`, which must not exist yet, when the block ends well."""
    assert not target.exists(), f"{target} is there already"
    beside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        settle_tree(beside)
        os.replace(beside, target)
        fsync(target.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


@contextmanager
def explain_disk_errors(what: str, then: str = "go on with --resume_from_checkpoint latest") -> Iterator[None]:
    """Turn a full or read-only disk into a RunError that says what was being written, what is kept and what to do."""
    try:
        yield
    except Exception as error:
        if (reason := disk_trouble(error)) is None:
            raise
        raise RunError(f"{what}: {reason}. Everything written before is intact; mend that and {then}") from error


def disk_trouble(error: BaseException) -> str | None:
    """The disk's complaint in words, or None for another kind of error.

    Libraries that write through native code (safetensors, Pillow) raise their own types, so their words are read too.
    """
    number = getattr(error, "errno", None)
    text = str(error)
    for code, words in (
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk reports an input/output error"),
    ):
        if number == code or f"os error {code}" in text or os.strerror(code) in text:
            return words
    return None
