"""Files of photographs and of their words, in folders and in zips alike.

A path may go on into a zip: photos.zip/dog/1.jpg is a file of it, photos.zip/dog and photos.zip are folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from .archive import Archive, looks_zipped, open_archive

MAX_BYTES = 1 << 30
"""Largest file that is read."""


class Entry(NamedTuple):
    """What lies in a folder."""

    path: Path
    folder: bool
    link: bool
    """A symbolic link."""


def in_zip(path: Path) -> tuple[Archive, str] | None:
    """The zip that a path goes into, and its place in there ("" is the zip itself); None where it goes into none.

    Raises:
        ConfigError: as `open_archive`.
    """
    if looks_zipped(path):
        return open_archive(path), ""
    for up in path.parents:
        if up.is_file():
            return open_archive(up), path.relative_to(up).as_posix()
        if up.exists():
            return None
    return None


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder, of a zip or of a folder in one; raises ConfigError as `in_zip`."""
    if path.is_dir():
        return True
    found = in_zip(path)
    return found is not None and found[1] in found[0].folders


def is_file(path: Path) -> bool:
    """Whether a path is that of a file, in a folder or in a zip; raises ConfigError as `in_zip`."""
    found = member(path)
    return path.is_file() if found is None else found[1] in found[0].files


def entries(folder: Path) -> list[Entry]:
    """What lies directly in a folder.

    Raises:
        OSError: it cannot be read.
        ConfigError: as `in_zip`.
    """
    if folder.is_dir() or (found := in_zip(folder)) is None:
        return [Entry(path, path.is_dir(), path.is_symlink()) for path in folder.iterdir()]
    archive, place = found
    return [Entry(archive.path / n, n in archive.folders, n in archive.links) for n in archive.folders.get(place, ())]


def member(path: Path) -> tuple[Archive, str] | None:
    """As `in_zip`, for a path that is a file's."""
    return None if path.parent.is_dir() else in_zip(path)


def read(path: Path) -> bytes:
    """A file's contents.

    Raises:
        OSError, ConfigError: it cannot be read.
        ConfigError: it is larger than `MAX_BYTES`.
    """
    found = member(path)
    size = path.stat().st_size if found is None else found[0].size(found[1])
    if size > MAX_BYTES:
        raise ConfigError(f"{path}: {size / 2**30:.1f} GiB is too large for a photograph; at most 1 GiB is read")
    return path.read_bytes() if found is None else found[0].read(found[1])


def head(path: Path, most: int) -> bytes:
    """A file's first bytes; as `read`."""
    if (found := member(path)) is not None:
        return found[0].head(found[1], most)
    with path.open("rb") as file:
        return file.read(most)
