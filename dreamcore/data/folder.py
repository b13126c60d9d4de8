"""A folder of photographs, checked before any costly work and handed out as training images.

Up to `FULL_CHECK` files are decoded and hashed in full at the start.  Beyond that their headers, tails and lengths are
looked at, and the rest on first use: a damaged middle is then found late, but still by name.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamcore.errors import ConfigError

from .captions import CaptionSource, read_captions
from .crop import Crop
from .decode import decode_bytes, read_bytes
from .finding import look, some
from .header import edge_digest, read_header

FULL_CHECK = 500
"""Images of a folder that are decoded and hashed in full when it is opened."""
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
    """Of the file's bytes, in hex; "edges:" and more (`edge_digest`) where it has not been read in full."""


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
    def open(
        cls,
        folder: str | Path,
        *,
        setting: str,
        captions: bool | CaptionSource = False,
        caption_column: str = "text",
        every_caption: bool = False,
        sub_folders: bool = False,
    ) -> ImageFolder:
        """Find, decode and hash every image of a folder; of more than `FULL_CHECK`, look at headers and tails.

        Args:
            folder: where they are.
            setting: the setting that named the folder, for messages.
            captions: where each image's own words are (`CaptionSource`); True looks beside the images and in
                metadata files. Images without keep `caption` None.
            caption_column: the metadata's column of words.
            every_caption: refuse an image without words.
            sub_folders: take the images of its sub-folders too.

        Raises:
            ConfigError: the folder is missing, no folder or without images; an image is empty, truncated, damaged,
                too large or of a format without decoder; a caption is empty or not UTF-8, there is none at all, or
                one is missing though `every_caption`.
        """
        folder = Path(folder)
        found = look(folder, setting, sub_folders=sub_folders)
        if not found.images:
            skipped = f" ({'; '.join(found.notes)})" if found.notes else ""
            where = "it" if sub_folders else "it, not into a sub-folder"
            raise ConfigError(f"{setting}: {folder} holds no images{skipped}; put the photographs into {where}")
        notes, remarks = list(found.notes), list[str]()
        if found.masks:
            notes.append(f"{len(found.masks)} masks are not used")
        words: dict[Path, str] = {}
        if captions:
            source: CaptionSource = "auto" if captions is True else captions
            words, remarks = read_captions(found.images, folder, source=source, column=caption_column)
            remarks += _without_caption(found.images, words, folder, setting, every_caption)
        check = _decoded_photo if len(found.images) <= FULL_CHECK else _indexed_photo
        photos = [check(path, words.get(path), remarks) for path in found.images]
        if len(photos) > FULL_CHECK:
            notes.append(
                f"{len(photos)} images: headers and tails are checked now, the rest when an image is first used"
            )
        return cls(folder, photos, notes + remarks + _copies(photos))

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, contents (as far as they have been read) and captions, in order."""
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
            ConfigError: the file has changed since the folder was opened, or cannot be read or decoded.
        """
        return crop.apply(self._scaled_photo(index, crop), rng)

    def _scaled_photo(self, index: int, crop: Crop) -> Image.Image:
        key = (index, crop.height, crop.width)
        if key in self._scaled:
            self._scaled.move_to_end(key)
            return self._scaled[key]
        photo = self.photos[index]
        data = read_bytes(photo.path)
        digest = edge_digest(data) if photo.sha256.startswith("edges:") else hashlib.sha256(data).hexdigest()
        if digest != photo.sha256:
            raise ConfigError(
                f"{photo.path}: the file has changed since the run read it; leave it alone during the run"
            )
        scaled = crop.scale(decode_bytes(data, photo.path).image)
        self._scaled[key] = scaled
        while len(self._scaled) > 1 and sum(3 * i.width * i.height for i in self._scaled.values()) > CACHE_BYTES:
            self._scaled.popitem(last=False)
        return scaled


def _decoded_photo(path: Path, caption: str | None, remarks: list[str]) -> Photo:
    data = read_bytes(path)
    decoded = decode_bytes(data, path)
    if decoded.frames > 1:
        remarks.append(f"{path.name} holds {decoded.frames} frames or pages: the first is used")
    return Photo(path, caption, decoded.image.size, hashlib.sha256(data).hexdigest())


def _indexed_photo(path: Path, caption: str | None, remarks: list[str]) -> Photo:
    header = read_header(path)
    if not header.sure:
        return _decoded_photo(path, caption, remarks)
    return Photo(path, caption, header.size, header.digest)


def _without_caption(
    images: Sequence[Path], words: Mapping[Path, str], folder: Path, setting: str, every: bool
) -> list[str]:
    without = [path.name for path in images if path not in words]
    if not words:
        raise ConfigError(
            f"{setting}: captions are asked for, but {folder} holds none; write {images[0].stem}.txt beside "
            f"{images[0].name}, and so on, or leave captions off"
        )
    if without and every:
        raise ConfigError(f"{setting}: no caption for {some(without)} in {folder}; write one for each image")
    return [f"{len(without)} of {len(images)} images have no caption: {some(without)}"] if without else []


def _copies(photos: Sequence[Photo]) -> list[str]:
    first: dict[str, str] = {}
    names = []
    for photo in photos:
        same = first.setdefault(photo.sha256, photo.path.name)
        if same != photo.path.name:
            names.append(f"{photo.path.name} is {same}")
    return [f"the same file more than once, each counts: {some(names)}"] if names else []
