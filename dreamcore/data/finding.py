"""Which files of a folder are its photographs, in an order that is the same on every machine."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from ..io.names import RECORDS
from . import storage
from .formats import HEAD_BYTES, hidden_name, image_name, raw_name, sniff

MASK_ENDING = "-mask"
"""NAME-mask.png beside NAME.jpg is its mask and not a photograph."""
REFERENCE_ENDING = "-cond"
"""NAME-cond.png beside NAME.jpg is its reference image and not a photograph."""
CAPTION_ENDINGS = (".txt", ".caption")
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass
class Found:
    """What a folder holds."""

    folder: Path = Path()
    """It; or in a zip the folder of the photographs."""
    images: list[Path] = field(default_factory=list)
    """In natural order: photo2 before photo10."""
    masks: dict[Path, Path] = field(default_factory=dict)
    """Image -> its mask."""
    references: dict[Path, Path] = field(default_factory=dict)
    """Image -> its reference image."""
    captions: int = 0
    """Files of words that lie beside them, metadata included."""
    notes: list[str] = field(default_factory=list)
    """What was skipped, in words."""


def find_images(folder: Path, setting: str) -> tuple[list[Path], list[str]]:
    """The images directly in a folder, perhaps none, in natural order, and what was skipped, in words; as `look`."""
    found = look(folder, setting)
    return found.images, found.notes


def look(folder: Path, setting: str, *, sub_folders: bool = False) -> Found:
    """The images of a folder, judged by content; a file whose name promises an image counts as one and is read later.

    Args:
        folder: where to look; a zip, too, and where its photographs lie in one folder in there, in that.
        setting: the setting that named it, for messages.
        sub_folders: look into sub-folders too, but never into hidden ones, checkpoints or what runs have written.

    Raises:
        ConfigError: the folder is missing, is none or cannot be read; a zip is damaged, or has several folders of them.
    """
    folder = _photo_folder(folder, setting, sub_folders)
    found, skipped, raw = Found(folder), Counter[str](), list[str]()
    others: list[Path] = []
    for path in _files(folder, setting, sub_folders, skipped):
        if raw_name(path.name):
            raw.append(path.name)
        elif image_name(path.name) or _holds_image(path):
            found.images.append(path)
        else:
            others.append(path)
    _refuse_unreadable_names(found.images, folder, setting)
    found.masks = _set_apart(found, MASK_ENDING)
    found.references = _set_apart(found, REFERENCE_ENDING)
    stems = {path.with_suffix("") for path in found.images}
    for path in others:
        beside = path.suffix.lower() in CAPTION_ENDINGS and path.with_suffix("") in stems
        words = beside or path.name in METADATA_NAMES
        found.captions += words
        skipped["other file"] += not words
    found.notes = [f"{n} {what}{'s' * (n > 1)} skipped" for what, n in skipped.items() if n]
    if raw:
        found.notes.append(f"camera raw files skipped, save them as JPEG or PNG to use them: {some(raw)}")
    return found


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key: numbers by value, case and Unicode form set aside; the name itself decides between equals."""
    form = unicodedata.normalize("NFC", name)
    parts = re.split(r"([0-9]+)", form.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], form


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list that may be long, for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _photo_folder(folder: Path, setting: str, sub_folders: bool) -> Path:
    """The folder to look into: what is named; in a zip the one that holds the photographs, as folders are zipped.

    Raises:
        ConfigError: there is none, or none that holds the others.
    """
    if not folder.is_dir():
        if not storage.is_folder(folder):
            missing = storage.in_zip(folder) is not None or not folder.exists()
            what = "does not exist" if missing else "is not a folder"
            raise ConfigError(f"{setting}: {folder} {what}; expected a folder with images, or a .zip of one")
        try:
            return _in_zip(folder, setting, sub_folders)
        except OSError as error:
            raise ConfigError(f"{setting}: {folder} cannot be read: {error.strerror or error}") from error
    return folder


def _in_zip(folder: Path, setting: str, sub_folders: bool) -> Path:
    """Of a zip's folder, the one in it that the photographs lie in, in sub-folders of it where those are read."""
    found = storage.in_zip(folder)
    assert found is not None
    archive = found[0]
    files = [archive.path / name for name in archive.files]
    files = [f for f in files if folder in f.parents and not any(map(hidden_name, f.relative_to(folder).parts))]
    images = [] if sub_folders else [file for file in files if image_name(file.name)]
    homes = sorted({file.parent for file in images or files})
    if not homes:
        return folder
    common = next(up for up in (homes[0], *homes[0].parents) if all(home == up or up in home.parents for home in homes))
    if images and common not in homes:
        raise ConfigError(
            f"{setting}: {folder}: photographs lie in several folders of the zip; name one, or give --sub_folders: "
            f"{some([str(home) for home in homes])}"
        )
    return common


def _files(folder: Path, setting: str, sub_folders: bool, skipped: Counter[str]) -> list[Path]:
    """Every file that is neither hidden nor in a folder that is skipped, in natural order of its path."""
    files, waiting = [], [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = storage.entries(here)
        except OSError as error:
            raise ConfigError(f"{setting}: {here} cannot be read: {error.strerror or error}") from error
        for path, is_folder, is_link in entries:
            if hidden_name(path.name):
                skipped["hidden file"] += 1
            elif is_link and storage.member(path):
                skipped["link"] += 1
            elif not is_folder:
                files.append(path)
            elif sub_folders and storage.is_folder(path / RECORDS):
                skipped["run's folder"] += 1
            elif sub_folders and not is_link and not path.name.startswith(("checkpoint-", "__MACOSX")):
                waiting.append(path)
            else:
                skipped["sub-folder"] += 1
    return sorted(files, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _refuse_unreadable_names(images: Sequence[Path], folder: Path, setting: str) -> None:
    """Refuse names that no text can hold, as old archives bring: reports and checkpoints name photographs."""
    strange = [path for path in images if str(path).encode("utf-8", "replace").decode() != str(path)]
    if strange:
        shown = some([str(path.relative_to(folder)).encode("utf-8", "backslashreplace").decode() for path in strange])
        where = str(folder).encode("utf-8", "backslashreplace").decode()
        raise ConfigError(f"{setting}: {where}: names that are not UTF-8: {shown}; rename the files, or the folder")


def _holds_image(path: Path) -> bool:
    try:
        return sniff(storage.head(path, HEAD_BYTES)) is not None
    except OSError:
        return False


def _set_apart(found: Found, ending: str) -> dict[Path, Path]:
    """Image -> the file of its name with this ending, which is no photograph."""
    beside = dict[Path, Path]()
    images = {path.with_suffix(""): path for path in found.images}
    for stem, path in images.items():
        if stem.name.endswith(ending):
            owner = images.get(stem.with_name(stem.name.removesuffix(ending)))
            if owner is not None:
                beside[owner] = path
    apart = set(beside.values())
    found.images = [path for path in found.images if path not in apart]
    return beside
