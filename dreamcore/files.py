"""Writing that survives a crash: a file or a folder is there complete, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RunError


def fsync(path: Path) -> None:
    """Force a file's or a folder's contents onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Force every file and folder below, and the folder itself, onto the disk."""
    for path in sorted(folder.rglob("*")):
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


@contextmanager
def folder_in_place(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `target`, which must not exist yet, when the block ends well."""
    assert not target.exists(), f"{target} is there already"
    beside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        fsync_tree(beside)
        os.replace(beside, target)
        fsync(target.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


@contextmanager
def explain_disk_errors(what: str) -> Iterator[None]:
    """Turn a full or read-only disk into a RunError that says what was being written and what is kept."""
    try:
        yield
    except Exception as error:
        if (reason := disk_trouble(error)) is None:
            raise
        raise RunError(
            f"{what}: {reason}. Everything written before is intact; make room and go on with "
            "--resume_from_checkpoint latest"
        ) from error


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
