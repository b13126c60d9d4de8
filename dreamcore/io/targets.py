"""What a command makes under a name that nothing has yet: there complete, or not at all, and never over anything."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError
from .files import settle_tree, take_name, usable_file, usable_folder
from .system import fsync, process_started


def refuse_taken(target: Path, setting: str, *, folder: bool) -> None:
    """Refuse a name that something has already, before anything costly is done; an empty folder is as good as none.

    Raises:
        ConfigError: it is taken, or cannot be written.
    """
    if target.is_dir() and not target.is_symlink() and folder and not any(target.iterdir()):
        usable_folder(target, setting)
        return
    if os.path.lexists(target):
        raise ConfigError(f"{setting}: {target}: is there already, and nothing is overwritten; choose another name")
    if not target.name:
        raise ConfigError(f"{setting}: {target}: is no name for a new {'folder' if folder else 'file'}")
    usable_file(target, setting)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the name of a file to write; the file becomes `target` when the block ends well, and is gone otherwise.

    Raises:
        ConfigError: something has taken the name since.
    """
    with _workplace(target) as place:
        part = place / target.name
        yield part
        fsync(part)
        if not take_name(part, target):
            raise ConfigError(f"{target}: has been written by another process since; nothing is overwritten")
        fsync(target.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; as `new_file`."""
    with _workplace(target) as place:
        part = place / target.name
        part.mkdir()
        yield part
        settle_tree(part)
        try:
            if target.is_dir():
                target.rmdir()
            part.rename(target)
        except OSError:
            if not os.path.lexists(target):
                raise
            raise ConfigError(f"{target}: has been filled by another process since; nothing is overwritten") from None
        fsync(target.parent)


@contextmanager
def working_folder(part: Path) -> Iterator[Path]:
    """An empty folder beside what `new_file` or `new_folder` yields, that is gone afterwards."""
    folder = part.with_name(".work")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target whose name tells the process that uses it, and that is gone afterwards; those
    of processes that were killed are cleared away."""
    for path in target.parent.glob(f".{_escaped(target.name)}.*.part"):
        match = re.fullmatch(r"\.(\d+)\.part", path.name.removeprefix(f".{target.name}"))
        if match and process_started(int(match[1])) is None:
            shutil.rmtree(path, ignore_errors=True)
    place = target.with_name(f".{target.name}.{os.getpid()}.part")
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _escaped(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
