"""Writing that survives a crash: a file or a folder is there complete, or not at all."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..errors import ConfigError, RunError
from .system import fsync

AGAIN = "give the command again"
"""What to do after a disk error of a command that keeps no checkpoints."""
ROOM_SECONDS, DEFAULT_ROOM_SECONDS = "DREAMBOOTH_ROOM_SECONDS", 600
"""Environment variable: how long a checkpoint waits for room on a full disk."""
T = TypeVar("T")


def settle_tree(folder: Path) -> None:
    """Give every file below the mode that the umask gave the folder itself, and force all of it onto the disk.

    (safetensors writes files that only their owner can read.)
    """
    mode = folder.stat().st_mode & 0o666
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(mode)
        fsync(path)
    fsync(folder)


def mapped(file: Path) -> mmap.mmap:
    """A file's bytes, read as they are asked for.

    Raises:
        OSError, ValueError: it cannot be opened; it is empty.
    """
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def write_atomically(path: Path, data: bytes | str, *, settle: bool = True) -> None:
    """Write a file beside its place and rename it into place once it is on the disk.

    Args:
        settle: wait for the disk; else a machine that goes down may leave the file empty, or as it was.
    """
    with file_in_place(path, settle=settle) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def file_in_place(path: Path, *, settle: bool = True) -> Iterator[BinaryIO]:
    """Yield an empty file to fill; it becomes `path`, in place of what is there, when the block ends well."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            if settle:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if settle:
        fsync(path.parent)


@contextmanager
def _written_beside(path: Path, data: bytes | str) -> Iterator[Path]:
    """A file on the disk, beside `path`, that is gone afterwards."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


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


def write_new(names: Iterable[Path], data: bytes | str) -> Path:
    """Write a file under the first of many names, all in one folder, that nothing has yet; returns it."""
    names = iter(names)
    target = next(names)
    with _written_beside(target, data) as beside:
        while not take_name(beside, target):
            target = next(names)
    fsync(target.parent)
    return target


def numbered(path: Path) -> Iterator[Path]:
    """NAME, NAME-2, NAME-3 ..., each with the ending."""
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))


def take_name(file: Path, target: Path) -> bool:
    """Give a file a further name; False where that is taken."""
    if os.path.lexists(target):
        return False
    try:
        os.link(file, target)
    except FileExistsError:  # by another process, since
        return False
    except OSError:  # a file system without links, where a name is taken first and filled afterwards
        try:
            target.open("xb").close()
        except FileExistsError:
            return False
        os.replace(file, target)
    return True


def free_name(folder: Path) -> Path:
    """A name like the folder's that nothing has yet: NAME-2, NAME-3 ..."""
    folder = folder if folder.name else folder.resolve()
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(name for name in names if not os.path.lexists(name))


def move(source: Path, target: Path) -> None:
    """Rename a file or a folder into its place, a file over a file; between disks (a link leads there) copy it."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)


@contextmanager
def folder_in_place(target: Path, beside: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `target`, which must not exist yet, when the block ends well.

    Args:
        beside: what the folder is until then, on the same disk; what lies there is removed.
    """
    assert not target.exists(), f"{target} is there already"
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
    except (ConfigError, RunError):
        raise
    except Exception as error:
        if (reason := disk_trouble(error)) is None:
            raise
        raise RunError(f"{what}: {reason}. Everything written before is intact; mend that and {then}") from error


FULL = (errno.ENOSPC, errno.EDQUOT)
_COMPLAINTS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk reports an input/output error",
}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def disk_trouble(error: BaseException) -> str | None:
    """The disk's complaint in words, or None for another kind of error."""
    return _COMPLAINTS.get(_number(error) or 0)


def _number(error: BaseException) -> int | None:
    """The system's number of an error, which safetensors' own type tells at its end: "... (os error 28)"."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    return int(found[1]) if (found := _OS_ERROR.search(str(error))) else None


def wait_for_room(write: Callable[[], T], what: str, say: Callable[[str], None]) -> T:
    """Write; where the disk is full, wait for room and try again, so that an hour's training is not lost for it.

    Args:
        write: leaves nothing behind where it fails.
        what: it writes, for the message.
        say: told once that the run waits.

    Raises:
        OSError, or what a library makes of it: the disk was full for as long as `ROOM_SECONDS` says, or it is something
            else.
    """
    end = time.monotonic() + (seconds := float(os.environ.get(ROOM_SECONDS, DEFAULT_ROOM_SECONDS)))
    for attempt in itertools.count():
        try:
            return write()
        except Exception as error:
            left = end - time.monotonic()
            if _number(error) not in FULL or left <= 0:
                raise
            if attempt == 0:
                say(f"{what}: {disk_trouble(error)}; make room within {seconds:.0f} seconds and the run goes on")
        time.sleep(min(2.0**attempt / 4, 30, left))
    raise AssertionError("it counts without end")
