"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .names import LOCK, RECORDS
from .system import locked

INSTANT = 0.2
"""Seconds that whoever does not wait tries for: a process that looks whether a folder is held, holds it no longer."""


class BusyError(Exception):
    """Another process holds the folder."""


@contextmanager
def held(folder: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a folder for this process alone; it is free again when the process ends, however it ends.

    Args:
        folder: there already.
        waiting: called before waiting for another process that holds it; None: nobody waits.

    Raises:
        BusyError: another process holds it, and nobody waits.
        OSError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    records = folder / RECORDS
    lock = FileLock(records / LOCK)
    timeout = INSTANT
    while not lock.is_locked:
        records.mkdir(exist_ok=True)
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            if waiting is None:
                raise BusyError from None
            waiting()
            timeout = -1
        except FileNotFoundError:  # who held it has just left, and its records with it
            continue
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: a process that has opened it since looks again
            Path(lock.lock_file).unlink()
        lock.release()
        with suppress(OSError):  # it holds records
            records.rmdir()


def is_held(folder: Path) -> bool | None:
    """Whether a process holds a folder, which is not disturbed; None where that cannot be told."""
    try:
        with (folder / RECORDS / LOCK).open("rb") as file:
            return locked(file)
    except FileNotFoundError:
        return False
    except OSError:
        return None
