"""Photographs in a .zip, as phones and cloud drives hand them out, read where they lie: nothing is unpacked.

So no name in a zip can lead anywhere, no copy stays behind, and a run that is killed leaves nothing to be believed.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ..errors import ConfigError

MAX_FILES = 100_000
"""Files in a zip, at most."""
MAX_TOTAL = 64 << 30
"""Bytes that all of them come to, at most, by what the zip says."""
MAX_DIRECTORY = 16 << 20
"""Bytes of the zip's own list of its files, at most."""
_ENCRYPTED, _UTF8 = 1, 1 << 11
"""Bits of a file's flags (PKWARE's APPNOTE.TXT, 4.4.4)."""
_HEADER = 30
"""Bytes that stand before a file's name, at least (4.3.7)."""
_DRIVE = re.compile(r"[A-Za-z]:")
AGAIN = "zip the photographs, or download them, again"
_DROPPED = "__MACOSX"
"""Folder into which macOS puts what belongs to the system."""


@dataclass(frozen=True)
class Archive:
    """A zip and the files in it."""

    path: Path
    files: dict[str, zipfile.ZipInfo]
    """By their paths inside, with "/"; links are not among them."""
    folders: dict[str, list[str]]
    """What lies in each folder, of files, links and folders, by their paths; "" is the zip itself."""
    links: frozenset[str]
    """Symbolic links, which are never followed."""
    opened: zipfile.ZipFile

    def size(self, name: str) -> int:
        """A file's length in bytes, by what the zip says; 0 for one that is not there."""
        return self.files[name].file_size if name in self.files else 0

    def head(self, name: str, most: int) -> bytes:
        """A file's first bytes, at most so many.

        Raises:
            ConfigError: there is no such file, or it is damaged.
        """
        if name not in self.files:
            raise ConfigError(f"{self.path / name}: no such file in {self.path.name}")
        try:
            with self.opened.open(self.files[name]) as file:
                return file.read(most)
        except Exception as error:  # damage shows as BadZipFile, zlib.error, EOFError, NotImplementedError ...
            raise ConfigError(f"{self.path / name}: damaged in the zip: {error}; {AGAIN}") from error

    def read(self, name: str) -> bytes:
        """A file's contents, which must be as long as the zip says and have its checksum; as `head`."""
        said = self.size(name)
        data = self.head(name, said + 1)
        if len(data) != said:
            raise ConfigError(f"{self.path / name}: damaged in the zip: {len(data)} of {said} bytes; {AGAIN}")
        return data


def looks_zipped(path: Path) -> bool:
    """Whether a file is a zip, by its name or its first bytes."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return path.suffix.lower() == ".zip" or file.read(4) in (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
    except OSError:
        return False


def open_archive(path: Path) -> Archive:
    """The zip in a file, kept open for the next file that is read of it.

    Raises:
        ConfigError: it is no zip, damaged, encrypted, of another compression than phones and clouds use, or made to do
            harm: paths that lead out of it, files that lie upon each other, more than the limits say.
    """
    try:
        now = path.stat()
        return _opened(path, os.getpid(), now.st_size, now.st_mtime_ns, now.st_ino)
    except ConfigError:
        raise
    except Exception as error:  # damage shows as BadZipFile, struct.error, UnicodeDecodeError, NotImplementedError ...
        why = error.strerror or error if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: a truncated or damaged zip, or none ({why}); {AGAIN}, or name a folder") from error


class _Bounded(io.FileIO):
    """A file of which no more is read at once than a zip's list of files may be long."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a list of files of {size} bytes, and at most {MAX_DIRECTORY} are read")
        return super().read(size) or b""


@lru_cache(maxsize=8)
def _opened(path: Path, process: int, *state: int) -> Archive:
    """The zip as it is now, for this process: forked ones share a file's place, and would read each other's."""
    opened = zipfile.ZipFile(_Bounded(path))
    infos = [info for info in opened.infolist() if not info.filename.endswith(("/", "\\"))]
    _check(path, infos)
    files, links = dict[str, zipfile.ZipInfo](), set[str]()
    for info in infos:
        name = _name(path, info)
        if PurePosixPath(name).parts[0] == _DROPPED:
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            links.add(name)
        elif files.setdefault(name, info) is not info:
            raise ConfigError(f"{path}: holds {name} twice; {AGAIN}")
    return Archive(path, files, _folders([*files, *links]), frozenset(links), opened)


def _folders(names: list[str]) -> dict[str, list[str]]:
    """Each folder and what lies in it."""
    folders: dict[str, list[str]] = {"": []}
    for name in names:
        known = False
        while name and not known:
            here, _, _ = name.rpartition("/")
            known = here in folders
            folders.setdefault(here, []).append(name)
            name = here
    return folders


def _check(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse what cannot be read, and bombs: files whose data lie upon each other can come to any size."""
    total = sum(info.file_size for info in infos)
    if len(infos) > MAX_FILES or total > MAX_TOTAL:
        raise ConfigError(
            f"{path}: {len(infos)} files of {total / 2**30:.1f} GiB in all are too much; at most {MAX_FILES} files of "
            f"{MAX_TOTAL >> 30} GiB are read: unpack it and name a folder in it"
        )
    for info in infos:
        if info.flag_bits & _ENCRYPTED:
            raise ConfigError(f"{path}: {info.filename} is encrypted; unpack it with its password and name the folder")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ConfigError(
                f"{path}: {info.filename} is compressed by a method ({info.compress_type}) that is not read here; "
                "unpack it and name the folder"
            )
    for one, other in pairwise(sorted(infos, key=lambda info: info.header_offset)):
        if one.header_offset + _HEADER + len(one.orig_filename) + one.compress_size > other.header_offset:
            raise ConfigError(f"{path}: {one.filename} and {other.filename} share their bytes: a zip made to do harm")


def _name(path: Path, info: zipfile.ZipInfo) -> str:
    """A file's path in the zip, as it would be in a folder.

    Raises:
        ConfigError: it leads out of it.
    """
    name = info.filename
    if not info.flag_bits & _UTF8:  # macOS writes UTF-8 and does not say so; Python takes it for DOS's letters
        try:
            name = name.encode("cp437").decode("utf-8")
        except ValueError:
            name = info.filename
    name = name.replace("\\", "/")  # as PowerShell has written them
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith("/") or _DRIVE.match(name):
        raise ConfigError(f"{path}: {info.filename!r}: a name that leads out of the zip; {AGAIN}")
    return "/".join(parts)
