"""A folder of photographs: found by content, checked in full before any costly work, in the same order everywhere.

Later: `metadata.jsonl`/`.csv` and caption templates (captions.py) fill `Photo.caption`; NAME-mask.png (masks.py) is
not counted as a photograph; beyond 500 files only headers and tails are read at the start.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamcore.errors import ConfigError

from .crop import Crop
from .decode import decode_bytes, read_bytes
from .formats import HEAD_BYTES, hidden_name, image_name, raw_name, sniff

CACHE_BYTES = 256 << 20
"""Memory for photographs kept at training size (0.75 MiB each at 512×512); beyond it the oldest are decoded anew."""


@dataclass(frozen=True)
class Photo:
    """One photograph of a folder."""

    path: Path
    caption: str | None
    """Its own words; None where it has none, and the run's prompt serves."""
    size: tuple[int, int]
    """(W, H) upright, after EXIF rotation."""
    sha256: str = ""
    """Of the file's bytes, in hex."""


class ImageFolder:
    """The photographs of a folder and what was remarked about them.  `ImageFolder.open` makes one."""

    def __init__(self, folder: Path, photos: Sequence[Photo], notes: Sequence[str]) -> None:
        self.folder = folder
        self.photos = list(photos)
        """In natural order (photo2 before photo10), the same on every machine."""
        self.notes = list(notes)
        """What was skipped or remarked, in words, for the log."""
        self._scaled: OrderedDict[tuple[int, int, int], Image.Image] = OrderedDict()

    @classmethod
    def open(cls, folder: str | Path, *, setting: str, captions: bool = False) -> ImageFolder:
        """Find, decode and hash every image of a folder.

        Args:
            folder: where they are; sub-folders are not entered.
            setting: the setting that named the folder, for messages.
            captions: read NAME.txt beside each image (UTF-8); images without keep `caption` None.

        Raises:
            ConfigError: the folder is missing, no folder or without images; an image is empty, truncated, damaged,
                too large or of a format without decoder; a caption is empty or not UTF-8, or there is none at all.
        """
        folder = Path(folder)
        files, notes = find_images(folder, setting)
        if not files:
            skipped = f" ({'; '.join(notes)})" if notes else ""
            raise ConfigError(f"{setting}: {folder} holds no images{skipped}; put the photographs directly into it")
        photos = []
        for path in files:
            data = read_bytes(path)
            size = decode_bytes(data, path).size
            photos.append(Photo(path, _caption(path) if captions else None, size, hashlib.sha256(data).hexdigest()))
        notes += _remarks(photos)
        if captions:
            without = [photo.path.name for photo in photos if photo.caption is None]
            if len(without) == len(photos):
                raise ConfigError(
                    f"{setting}: captions are asked for, but {folder} holds none; write {files[0].stem}.txt beside "
                    f"{files[0].name}, and so on, or leave captions off"
                )
            if without:
                notes.append(f"{len(without)} of {len(photos)} images have no caption: {_some(without)}")
        return cls(folder, photos, notes)

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, contents and captions, in order."""
        digest = hashlib.sha256()
        for photo in self.photos:
            name = unicodedata.normalize("NFC", photo.path.relative_to(self.folder).as_posix())
            caption = "-" if photo.caption is None else "+" + photo.caption
            for part in (name, photo.sha256, caption):
                digest.update(len(part.encode()).to_bytes(8, "little") + part.encode())
        return digest.hexdigest()

    def limited(self, count: int) -> ImageFolder:
        """The first `count` images."""
        assert count > 0
        if count >= len(self.photos):
            return self
        note = (
            f"{len(self.photos) - count} of {len(self.photos)} images in {self.folder} are left out: {count} are used"
        )
        return ImageFolder(self.folder, self.photos[:count], [*self.notes, note])

    def pixels(self, index: int, crop: Crop, rng: np.random.Generator | None) -> NDArray[np.float32]:
        """[3, H, W] RGB in [−1, 1]: a photograph scaled to cover the crop, cropped and perhaps mirrored.

        Args:
            index: place in `photos`.
            crop: the transform.
            rng: what its random choices are drawn from; may be None where it makes none.

        Raises:
            ConfigError: the file has changed since the folder was opened, or cannot be read any more.
        """
        return crop.apply(self._scaled_photo(index, crop), rng)

    def _scaled_photo(self, index: int, crop: Crop) -> Image.Image:
        key = (index, crop.height, crop.width)
        if key in self._scaled:
            self._scaled.move_to_end(key)
            return self._scaled[key]
        photo = self.photos[index]
        data = read_bytes(photo.path)
        if photo.sha256 and hashlib.sha256(data).hexdigest() != photo.sha256:
            raise ConfigError(
                f"{photo.path}: the file has changed since the run read it; leave it alone during the run"
            )
        scaled = crop.scale(decode_bytes(data, photo.path))
        self._scaled[key] = scaled
        while len(self._scaled) > 1 and sum(3 * i.width * i.height for i in self._scaled.values()) > CACHE_BYTES:
            self._scaled.popitem(last=False)
        return scaled


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key: numbers by value, case and Unicode form set aside; the name itself decides between equals."""
    form = unicodedata.normalize("NFC", name)
    parts = re.split(r"([0-9]+)", form.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], form


def find_images(folder: Path, setting: str) -> tuple[list[Path], list[str]]:
    """The images directly in a folder, in natural order, and what else is there, in words."""
    if not folder.exists():
        raise ConfigError(f"{setting}: {folder} does not exist; expected a folder with images")
    if not folder.is_dir():
        raise ConfigError(f"{setting}: {folder} is not a folder; expected a folder with images")
    try:
        entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError as error:
        raise ConfigError(f"{setting}: {folder} cannot be read: {error.strerror or error}") from error
    images, skipped, raw = [], Counter[str](), []
    for path in entries:
        if hidden_name(path.name):
            skipped["hidden file"] += 1
        elif path.is_dir():
            skipped["sub-folder"] += 1
        elif raw_name(path.name):
            raw.append(path.name)
        elif image_name(path.name) or _holds_image(path):
            images.append(path)
        else:
            skipped["other file"] += 1
    stems = {path.stem for path in images}
    captions = sum(path.suffix.lower() == ".txt" and path.stem in stems for path in entries if path not in images)
    skipped["other file"] -= captions
    notes = [f"{n} {what}{'s' * (n > 1)} skipped" for what, n in skipped.items() if n > 0]
    if raw:
        notes.append(f"camera raw files skipped, save them as JPEG or PNG to use them: {_some(raw)}")
    return images, notes


def _holds_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return sniff(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _caption(path: Path) -> str | None:
    """The words in NAME.txt beside an image, without surrounding space."""
    file = path.with_suffix(".txt")
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not UTF-8 ({error.reason} at byte {error.start}); save the caption as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    if not text:
        raise ConfigError(f"{file}: the caption is empty; write one, or delete the file to use the prompt")
    return text


def _remarks(photos: Sequence[Photo]) -> list[str]:
    first: dict[str, str] = {}
    notes = []
    for photo in photos:
        same = first.setdefault(photo.sha256, photo.path.name)
        if same != photo.path.name:
            notes.append(f"{photo.path.name} is the same file as {same}: the picture counts twice")
    return notes


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
