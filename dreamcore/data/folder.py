"""A folder of photographs, checked before any costly work and handed out as training images.

Up to `FULL_CHECK` files are decoded and hashed in full at the start.  Beyond that their headers, tails and lengths are
looked at, and the rest on first use: a damaged middle is then found late, but still by name.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamcore.errors import ConfigError

from .captions import CaptionSource, read_captions
from .crop import Crop, CropRecord, to_planes
from .decode import decode_bytes, read_bytes
from .finding import look, some
from .header import edge_digest, read_header
from .masks import Box, read_mask, scaled_box, subject_box

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
    mask: Path | None = None
    """File of its mask; its own file where that is its alpha channel."""
    mask_sha256: str = ""
    """Of the mask file's bytes, where it is a file of its own."""


class TrainingImage(NamedTuple):
    """One sample of a photograph."""

    pixels: NDArray[np.float32]
    """[3, H, W] RGB in [−1, 1]."""
    mask: NDArray[np.float32] | None
    """[H, W] in [0, 1]: 1 on the subject."""
    record: CropRecord


class ImageFolder:
    """The photographs of a folder and what was remarked about them.  `ImageFolder.open` makes one."""

    def __init__(self, folder: Path, photos: Sequence[Photo], notes: Sequence[str]) -> None:
        self.folder = folder
        self.photos = list(photos)
        """In natural order (photo2 before photo10), the same on every machine."""
        self.notes = list(notes)
        """What was skipped or remarked, in words, for the log."""
        self._scaled: OrderedDict[tuple[int, int, int], _Scaled] = OrderedDict()

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
        masks: bool = False,
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
            masks: use NAME-mask.png or an image's alpha channel as its mask (masks.py).

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
        if found.masks and not masks:
            notes.append(f"{len(found.masks)} masks are not used")
        words: dict[Path, str] = {}
        if captions:
            source: CaptionSource = "auto" if captions is True else captions
            words, remarks = read_captions(found.images, folder, source=source, column=caption_column)
            remarks += _without_caption(found.images, words, folder, setting, every_caption)
        photos = _checked(found.images, words, found.masks if masks else None, remarks)
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
            for part in (name, photo.sha256, caption, *([photo.mask_sha256 or "alpha"] if photo.mask else [])):
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
        return self.sample(index, crop, rng).pixels

    def sample(self, index: int, crop: Crop, rng: np.random.Generator | None) -> TrainingImage:
        """`pixels`, with the mask and the crop's record; arguments and errors are the same."""
        photo = self.photos[index]
        scaled = self._scaled_photo(index, crop)
        place = crop.place(scaled.image.size, rng, scaled.box)
        mask = None if scaled.mask is None else crop.cut(scaled.mask, place).astype(np.float32) / np.float32(255)
        return TrainingImage(to_planes(crop.cut(scaled.image, place)), mask, crop.record(photo.size, place))

    def place(self, index: int, crop: Crop, rng: np.random.Generator | None) -> tuple[int, int, bool]:
        """(left, top, mirrored) of the crop that `sample` would make with the same `rng` (see `Crop.place`)."""
        photo = self.photos[index]
        box = self._scaled_photo(index, crop).box if crop.subject and photo.mask is not None else None
        return crop.place(crop.scaled_size(photo.size), rng, box)

    def record(self, index: int, crop: Crop, rng: np.random.Generator | None) -> CropRecord:
        """What `sample` would show of the photograph with the same `rng`."""
        return crop.record(self.photos[index].size, self.place(index, crop, rng))

    def _scaled_photo(self, index: int, crop: Crop) -> _Scaled:
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
        image, mask, box = crop.scale(decode_bytes(data, photo.path).image), None, None
        if photo.mask is not None:
            full = read_mask(photo.mask, photo.path, photo.size)
            mask, found = crop.scale(full), subject_box(full)
            box = scaled_box(found, photo.size, image.size) if found else None
        scaled = self._scaled[key] = _Scaled(image, mask, box)
        while len(self._scaled) > 1 and sum(s.size for s in self._scaled.values()) > CACHE_BYTES:
            self._scaled.popitem(last=False)
        return scaled


class _Scaled(NamedTuple):
    """A photograph at training size, its mask, and the subject's box in it."""

    image: Image.Image
    mask: Image.Image | None
    box: Box | None

    @property
    def size(self) -> int:
        return self.image.width * self.image.height * (3 if self.mask is None else 4)


def _checked(
    images: Sequence[Path], words: Mapping[Path, str], masks: Mapping[Path, Path] | None, remarks: list[str]
) -> list[Photo]:
    """Every image looked at; what is wrong with any of them is told in one error, so that one round mends all."""
    check = _decoded_photo if len(images) <= FULL_CHECK else _indexed_photo
    photos, wrong = list[Photo](), list[str]()
    for path in images:
        try:
            photo, alpha = check(path, words.get(path), remarks)
            photos.append(photo if masks is None else _with_mask(photo, alpha, masks))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        more = [f"and {len(wrong) - 20} more"] if len(wrong) > 20 else []
        raise ConfigError("\n".join(wrong[:20] + more))
    without = [photo.path.name for photo in photos if photo.mask is None]
    if masks is not None and without:
        remarks.append(f"{len(without)} of {len(photos)} images have no mask, all of them counts: {some(without)}")
    return photos


def _decoded_photo(path: Path, caption: str | None, remarks: list[str]) -> tuple[Photo, bool]:
    """A photograph read in full, and whether it has an alpha channel."""
    data = read_bytes(path)
    decoded = decode_bytes(data, path, keep_alpha=True)
    if decoded.frames > 1:
        remarks.append(f"{path.name} holds {decoded.frames} frames or pages: the first is used")
    photo = Photo(path, caption, decoded.image.size, hashlib.sha256(data).hexdigest())
    return photo, decoded.image.mode == "RGBA"


def _indexed_photo(path: Path, caption: str | None, remarks: list[str]) -> tuple[Photo, bool]:
    header = read_header(path)
    if not header.sure:
        return _decoded_photo(path, caption, remarks)
    return Photo(path, caption, header.size, header.digest), header.alpha


def _with_mask(photo: Photo, alpha: bool, masks: Mapping[Path, Path]) -> Photo:
    """The photograph with its mask, which is read and checked here."""
    file = masks.get(photo.path, photo.path if alpha else None)
    if file is None:
        return photo
    read_mask(file, photo.path, photo.size)
    own = "" if file == photo.path else hashlib.sha256(read_bytes(file)).hexdigest()
    return replace(photo, mask=file, mask_sha256=own)


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
