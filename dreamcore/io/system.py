"""What one operating system has and another has not, each with what takes its place.

Tested on Linux; a test takes away what macOS and Windows lack (tests/house/test_other_systems.py).
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

STOPPING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""The signals that ask a command to end; Windows has no hanging up."""
_ZEROS = bytes(1 << 20)
_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of malloc.h."""
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def shell_line(words: Sequence[str]) -> str:
    """A command as it is typed into this system's shell: a word in double quotes, which all shells have, where they do.

    >>> shell_line(["dreambooth", "generate", "--prompt", "a sks dog"])
    'dreambooth generate --prompt "a sks dog"'
    """
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./-]+", word):
        return word
    return shlex.quote(word) if re.search(r"[\"$`\\!]|[^\x20-\U0010ffff]", word) or not word else f'"{word}"'


def reserve(file: IO[bytes], size: int) -> None:
    """Take `size` bytes of the disk for an open file at once: a hole that cannot be filled later kills the process.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, len(_ZEROS)):
        file.write(_ZEROS[: size - start])
    file.flush()


def fsync(path: Path) -> None:
    """Force a file's or a folder's contents onto the disk; Windows opens no folders, and keeps their entries itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locked(file: IO[bytes]) -> bool | None:
    """Whether a process has locked a file, as filelock does; None where the system or the disk cannot tell.

    A shared lock tries it, which a file that is open for reading may have; it is held for an instant.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a disk without locks
        return None
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def process_started(pid: int) -> float | None:
    """When a process was started, seconds since 1970; None where there is no such process (one that has ended and was
    not waited for is none), or the system does not tell."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None


def peak_of_process() -> int | None:
    """Bytes of memory that this process held at most since the last call (Linux's VmHWM); None on other systems, which
    tell the peak of its whole life or nothing."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        _RESET.write_text("5")
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None


def give_back_memory() -> None:
    """Let the C library give back to the system what this process has freed (glibc keeps blocks of up to 32 MiB, some
    250 MiB for each network that is loaded); nothing elsewhere."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_blocks_apart() -> None:
    """Let the C library give each large block pages of its own, which go back when it is freed; nothing elsewhere.

    Else glibc, once it has seen large blocks go, keeps those of up to 32 MiB in one heap.  Up to version 2.37 a hole
    there hardly ever takes an aligned block of its own size again (its bug 14581), so that a network's weights and
    activations come to take twice what they are.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, 2**20)


def held_by_process() -> int | None:
    """Bytes of memory that this process holds now; None where the system does not say."""
    import psutil

    try:
        return int(psutil.Process().memory_info().rss)
    except (OSError, psutil.Error):
        return None


def peak_of_life() -> int | None:
    """Bytes of memory that this process has held at most since it was started; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)


def hand_on(number: int, pid: int) -> None:
    """Send a signal to a process, if it is still there.

    On Windows, Ctrl-C reaches every process of the console by itself, and to send one means to kill.
    """
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def session_leaders(parent: int) -> list[tuple[int, Mapping[str, str]]]:
    """Processes that `parent` has started in sessions of their own (on Windows all), each with its environment."""
    import psutil

    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(parent).children():
            with suppress(psutil.Error, ProcessLookupError):
                if not hasattr(os, "getsid") or os.getsid(child.pid) == child.pid:
                    found.append((child.pid, child.environ()))
    return found


def kill_all(pid: int) -> None:
    """Kill a process and all that it has started."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [*process.children(recursive=True), process]:
            with suppress(psutil.Error):
                one.kill()
