"""SHA-256 of files, and of large ones that do not change, remembered from run to run.

What is remembered only saves time: where it cannot be read, written or believed, a file is hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from filelock import FileLock

from .progress import Work, progress

LARGE = 32 << 20
"""Bytes from which on remembering a file is worth while: hashing fewer takes less than a tenth of a second."""
SETTLED_SECONDS = 2.0
"""A file must have been left alone for so long: within one tick of a file system's clock, changes look alike."""
LOCK_SECONDS = 600
"""Another process is waited for so long."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        with progress(f"hashing {path.name}", size, "bytes") as step:
            return hashlib.file_digest(_Counted(file, step), "sha256").hexdigest()


class _Counted:
    """A file that tells how much of it is read."""

    def __init__(self, file: BufferedReader, step: Work):
        self._file, self._step = file, step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        count = self._file.readinto(buffer)
        self._step(count)
        return count


def remembered_sha256(path: Path) -> str:
    """`file_sha256`, taken once a machine while the file's size, inode and times of change stay as they are.

    Processes that ask at the same time wait for the first.  A verdict on damage needs `file_sha256`: a disk that
    corrupts a file leaves its times as they were.
    """
    path = path.resolve()  # the Hub's cache links to its files
    if path.stat().st_size < LARGE:
        return file_sha256(path)
    name = hashlib.sha256(f"{platform.node()}:{path}".encode("utf-8", "surrogateescape")).hexdigest()
    note = own_cache("sha256") / f"{name}.json"
    if (known := _read(note, path)) is not None:
        return known
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(note.with_suffix(".lock"), timeout=LOCK_SECONDS):
            return _read(note, path) or _hash_and_note(note, path)
    except (OSError, NotImplementedError):  # a folder that cannot be made, a lock that cannot be had
        return file_sha256(path)


def own_cache(name: str) -> Path:
    """Our folder of that name beside the Hub's files, which are cached in the same place on every system."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreambooth" / name


def _state(path: Path) -> list[int]:
    """What differs once a file has been written to or replaced."""
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(note: Path, path: Path) -> str | None:
    """What is remembered of a file as it is now."""
    try:
        said = json.loads(note.read_bytes())
        known = said["sha256"] if said["state"] == _state(path) else None
        return known if isinstance(known, str) and len(bytes.fromhex(known)) == 32 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _hash_and_note(note: Path, path: Path) -> str:
    settled = _settle(path)
    before = _state(path)
    sha256 = file_sha256(path)
    if settled and _state(path) == before:
        beside = note.with_suffix(".tmp")  # the lock is held, so nobody else writes it
        with suppress(OSError):  # a full disk: the hash is known all the same
            beside.write_text(json.dumps({"path": str(path), "state": before, "sha256": sha256}), encoding="utf-8")
            os.replace(beside, note)
    return sha256


def _settle(path: Path, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Wait until a file has been left alone for `SETTLED_SECONDS`; False where it has not, or its clock is ahead."""

    def missing() -> float:
        stat = path.stat()
        return SETTLED_SECONDS - (time.time() - max(stat.st_mtime, stat.st_ctime))

    if 0 < missing() <= SETTLED_SECONDS:
        sleep(missing())
    return missing() <= 0
