"""Each photograph's own words, from wherever a person has put them beside it.

A dataset in parquet or Arrow files brings photographs and words together: table.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from ..io.text import NotUTF8, text_of
from . import storage
from .finding import CAPTION_ENDINGS, METADATA_NAMES, some

CaptionSource = Literal["auto", "files", "metadata", "file_names"]
"""NAME.txt or NAME.caption beside the image; metadata.jsonl or .csv; either of them; the image's name itself."""


def read_captions(
    images: Sequence[Path], folder: Path, *, source: CaptionSource = "auto", column: str = "text"
) -> tuple[dict[Path, str], list[str]]:
    """The words of those images that have some, and remarks.

    Args:
        images: the photographs.
        folder: the folder that holds them, perhaps in sub-folders.
        source: where the words are.
        column: the metadata's column of words; that of names is `file_name`, as in Hugging Face's `imagefolder`.

    Raises:
        ConfigError: a caption is empty, not UTF-8 or no text; metadata are damaged; an image has two captions.
    """
    if source == "file_names":
        return {image: words_of_name(image) for image in images}, []
    beside = _beside(images) if source != "metadata" else {}
    listed, notes = _listed(images, folder, column) if source != "files" else ({}, [])
    for image in beside.keys() & listed.keys():
        (one, words), (other, others) = beside[image], listed[image]
        if words != others:
            raise ConfigError(f"{image}: has two captions, one in {one} and one in {other}; delete one of them")
    return {image: words for image, (_, words) in (listed | beside).items()}, notes


def words_of_name(image: Path) -> str:
    """ "red_mug-on grass (2).jpg" -> "red mug on grass".

    Raises:
        ConfigError: nothing but numbers remains.
    """
    words = re.sub(r"[\W_]+\(?\d+\)?$", "", image.stem)  # the copy's number
    words = " ".join(re.split(r"[\s_\-]+", words)).strip()
    if not re.search(r"[^\W\d_]", words):
        raise ConfigError(
            f"{image}: the name holds no words to use as a caption; rename it, or take captions elsewhere"
        )
    return words


def _beside(images: Sequence[Path]) -> dict[Path, tuple[Path, str]]:
    """Image -> (file, words) from NAME.txt or NAME.caption."""
    found = {}
    there: dict[Path, list[Path]] = {}  # an image's path without ending -> the files of words beside it
    for folder in {image.parent for image in images}:
        for file, is_folder, _ in sorted(storage.entries(folder)):
            if file.suffix.lower() in CAPTION_ENDINGS and not is_folder:
                there.setdefault(file.with_suffix(""), []).append(file)
    for image in images:
        files = [file for file in there.get(image.with_suffix(""), ()) if file != image]
        if len(files) > 1:
            raise ConfigError(f"{image}: has two captions, {files[0].name} and {files[1].name}; delete one of them")
        if files:
            found[image] = files[0], _words(_read_text(files[0]), str(files[0]))
    return found


def _listed(images: Sequence[Path], folder: Path, column: str) -> tuple[dict[Path, tuple[Path, str]], list[str]]:
    """Image -> (metadata file, words), from the metadata files of the folder and its sub-folders, and remarks."""
    by_name = {_form(image.relative_to(folder)): image for image in images}
    found: dict[Path, tuple[Path, str]] = {}
    strange = list[str]()
    for place in sorted({up for image in images for up in image.parents if up == folder or folder in up.parents}):
        files = [place / name for name in METADATA_NAMES if storage.is_file(place / name)]
        if len(files) > 1:
            raise ConfigError(f"{place}: holds {' and '.join(METADATA_NAMES)}; delete one of them")
        for where, row in _rows(files[0]) if files else ():
            name, words = _name_and_words(row, where, column)
            image = by_name.get(_form((place / name).relative_to(folder)))
            if image is None:
                strange.append(name)
            elif image in found and found[image][1] != words:
                raise ConfigError(f"{where}: a second and different caption of {name}; delete one of them")
            else:
                found[image] = files[0], words
    notes = [f"metadata of images that are not there or not used: {some(strange)}"] if strange else []
    if strange and not found:
        notes[0] += f", while images here are called {some(list(by_name), 2)}: file_name is a path from the metadata on"
    for other, *_ in sorted(storage.entries(folder)):
        named = other.stem.lower() == "metadata" and other.suffix.startswith(".json")
        if named and other.name not in METADATA_NAMES:
            notes.append(
                f"{other.name} is not read; expected {METADATA_NAMES[0]}, an object a line, or {METADATA_NAMES[1]}"
            )
    return found, notes


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """("FILE, line N", row) for each row of a metadata file."""
    text = _read_text(file)
    if file.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in reader:
                yield f"{file}, line {reader.line_num}", row
        except csv.Error as error:
            raise ConfigError(f"{file}, line {reader.line_num}: not CSV: {error}") from error
        return
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f'{where}: expected an object such as {{"file_name": "01.jpg", "text": "a dog"}}')
        yield where, row


def _name_and_words(row: Mapping[str, Any], where: str, column: str) -> tuple[str, str]:
    for name in ("file_name", column):
        if name not in row:
            raise ConfigError(f"{where}: has no {name!r}; it has {', '.join(repr(key) for key in row if key)}")
        if not isinstance(row[name], str):
            raise ConfigError(f"{where}: {name} is {row[name]!r}; expected text")
    path = Path(row["file_name"])
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{where}: file_name is {row['file_name']!r}; expected a path inside the folder")
    return row["file_name"], _words(row[column], where)


def _words(text: str, where: str) -> str:
    if not text.strip():
        raise ConfigError(f"{where}: the caption is empty; write one, or delete it to use the prompt")
    return text.strip()


def _read_text(file: Path) -> str:
    try:
        return text_of(storage.read(file))
    except NotUTF8 as error:
        raise ConfigError(f"{file}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error


def _form(path: Path) -> str:
    """One spelling of a name that systems spell in several ways (macOS decomposes accents)."""
    return unicodedata.normalize("NFC", path.as_posix())
