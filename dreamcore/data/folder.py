"""The photographs of a folder or table, checked before any costly work and handed out as training images.

Up to `FULL_CHECK` files are decoded and hashed in full at the start.  Beyond that their headers, tails and lengths are
looked at, and the rest on first use: a damaged middle is then found late, but still by name.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError
from . import checking
from .captions import CaptionSource, read_captions
from .crop import Crop, CropRecord, Place, to_planes
from .decode import WHITE, Colour, decode_bytes
from .finding import REFERENCE_ENDING, look, some
from .header import edge_digest
from .masks import Box, scaled_box, subject_box
from .photo import Photo
from .table import ENDINGS, Table

CACHE_BYTES = 256 << 20
"""Memory for photographs kept at training size (0.75 MiB each at 512×512); beyond it the oldest are decoded anew."""


class TrainingImage(NamedTuple):
    """One sample of a photograph."""

    pixels: NDArray[np.float32]
    """[3, H, W] RGB in [−1, 1]."""
    mask: NDArray[np.float32] | None
    """[H, W] in [0, 1]: 1 on the subject."""
    record: CropRecord
    reference: NDArray[np.float32] | None = None
    """[3, H, W] its reference image, cropped and mirrored alike."""


class ImageFolder:
    """The photographs of a folder and what was remarked about them.  `open` or `open_table` makes one."""

    def __init__(self, folder: Path, photos: Sequence[Photo], notes: Sequence[str], background: Colour = WHITE) -> None:
        self.folder = folder
        """The folder, or the dataset."""
        self.photos = list(photos)
        """In natural order (photo2 before photo10), the same on every machine."""
        self.notes = list(notes)
        """What was skipped or remarked, in words, for the log."""
        self.background = background
        """What shows through where a photograph is transparent."""
        self._scaled: OrderedDict[tuple[int, int, int], _Scaled] = OrderedDict()
        self._lock = Lock()  # a thread decodes what training will see, while a report shows what it has seen

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
        references: bool = False,
        background: Colour = WHITE,
    ) -> ImageFolder:
        """Find, decode and hash every image of a folder; of more than `FULL_CHECK`, look at headers and tails.

        Args:
            folder: where they are; a zip serves as well.
            setting: the setting that named the folder, for messages.
            captions: where each image's own words are (`CaptionSource`); True looks beside the images and in
                metadata files. Images without keep `caption` None.
            caption_column: the metadata's column of words.
            every_caption: refuse an image without words.
            sub_folders: take the images of its sub-folders too.
            masks: use NAME-mask.png or an image's alpha channel as its mask (masks.py).
            references: use NAME-cond.png as an image's reference.
            background: what shows through where an image is transparent.

        Raises:
            ConfigError: the folder is missing, no folder or without images; an image is empty, truncated, damaged,
                too large or of a format without decoder; a caption is empty or not UTF-8, there is none at all, or
                one is missing though `every_caption`; some images have references and others none.
        """
        folder = Path(folder)
        found = look(folder, setting, sub_folders=sub_folders)
        folder = found.folder
        if not found.images:
            skipped = f" ({'; '.join(found.notes)})" if found.notes else ""
            where = "it" if sub_folders else "it, not into a sub-folder"
            if any(path.suffix.lower() in ENDINGS for path in folder.rglob("*")):
                where += ", or name it as dataset_name, as which tables are read"
            raise ConfigError(f"{setting}: {folder} holds no images{skipped}; put the photographs into {where}")
        notes, remarks = list(found.notes), list[str]()
        if found.captions and not captions:
            several = "file of captions lies", "is", "it"
            if found.captions > 1:
                several = "files of captions lie", "are", "them"
            notes.append("{} {} there and {} not used: --use_captions takes {}".format(found.captions, *several))
        if found.masks and not masks:
            notes.append(f"{len(found.masks)} masks are not used")
        if found.references and not references:
            notes.append(f"{len(found.references)} reference images (NAME{REFERENCE_ENDING}) are not used")
        beside = found.references if references else {}
        words: dict[Path, str] = {}
        if captions:
            source: CaptionSource = "auto" if captions is True else captions
            words, remarks = read_captions(found.images, folder, source=source, column=caption_column)
        photos = [Photo(path, words.get(path), (0, 0), reference=beside.get(path)) for path in found.images]
        _refuse_some(photos, f"{setting}: {folder}")
        if captions:
            remarks += _without_caption(photos, f"{setting}: {folder}", every_caption, remarks)
        photos = checking.check_photos(photos, found.masks if masks else None, remarks)
        if len(photos) > checking.FULL_CHECK:
            notes.append(
                f"{len(photos)} images: headers and tails are checked now, the rest when an image is first used"
            )
        return cls(folder, photos, notes + remarks + checking.copies(photos), background)

    @classmethod
    def open_table(
        cls,
        table: Table,
        *,
        setting: str,
        every_caption: bool = False,
        masks: bool = False,
        background: Colour = WHITE,
    ) -> ImageFolder:
        """`open` for the rows of a table; an image's alpha channel can be its mask.

        Raises:
            ConfigError: as `open`, naming file and row.
        """
        photos = [
            Photo(
                *(row.path, row.caption, (0, 0)),
                row=row.data,
                reference=row.path.with_name(f"{row.path.name}, reference image") if row.reference else None,
                reference_row=row.reference,
            )
            for row in table.rows()
        ]
        if not photos:
            raise ConfigError(f"{setting}: {table.name} has no rows; expected one for each photograph")
        remarks = _without_caption(photos, f"{setting}: {table.name}", every_caption) if table.captioned else []
        photos = checking.check_photos(photos, {} if masks else None, remarks)
        return cls(table.name, photos, remarks + checking.copies(photos), background)

    def __len__(self) -> int:
        return len(self.photos)

    @cached_property
    def refers(self) -> bool:
        """Whether the photographs have reference images; each sample asks, so all are looked at once."""
        return any(photo.reference is not None for photo in self.photos)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, contents (as far as they have been read) and captions, in order."""
        digest = hashlib.sha256()
        for photo in self.photos:
            name = unicodedata.normalize("NFC", photo.path.relative_to(self.folder).as_posix())
            caption = "-" if photo.caption is None else "+" + photo.caption
            mask = [photo.mask_sha256 or "alpha"] if photo.mask else []
            for part in (name, photo.sha256, caption, *mask, *([photo.reference_sha256] if photo.reference else [])):
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
        return ImageFolder(self.folder, self.photos[:count], [*self.notes, note], self.background)

    def part(self, photos: Sequence[Photo]) -> ImageFolder:
        """Some of the photographs by themselves."""
        return ImageFolder(self.folder, photos, self.notes, self.background)

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
        """`pixels`, with mask, reference and the crop's record; arguments and errors are the same."""
        photo = self.photos[index]
        scaled = self._scaled_photo(index, crop)
        place = crop.place(scaled.image.size, rng, scaled.box)
        mask = None if scaled.mask is None else crop.cut(scaled.mask, place).astype(np.float32) / np.float32(255)
        image, record = to_planes(crop.cut(scaled.image, place)), crop.record(photo.size, place)
        reference = None if scaled.reference is None else to_planes(crop.cut(scaled.reference, place))
        return TrainingImage(image, mask, record, reference)

    def scaled(self, index: int, crop: Crop) -> Image.Image:
        """A photograph scaled to cover the crop, kept for `sample`."""
        return self._scaled_photo(index, crop).image

    def place(self, index: int, crop: Crop, rng: np.random.Generator | None) -> Place:
        """(left, top, mirrored) of the crop that `sample` would make with the same `rng` (see `Crop.place`)."""
        photo = self.photos[index]
        box = self._scaled_photo(index, crop).box if crop.subject and photo.mask is not None else None
        return crop.place(crop.scaled_size(photo.size), rng, box)

    def record(self, index: int, crop: Crop, rng: np.random.Generator | None) -> CropRecord:
        """What `sample` would show of the photograph with the same `rng`."""
        return crop.record(self.photos[index].size, self.place(index, crop, rng))

    def _scaled_photo(self, index: int, crop: Crop) -> _Scaled:
        key = (index, crop.height, crop.width)
        with self._lock:
            if key in self._scaled:
                self._scaled.move_to_end(key)
                return self._scaled[key]
        photo = self.photos[index]
        data = photo.data()
        digest = edge_digest(data) if photo.sha256.startswith("edges:") else hashlib.sha256(data).hexdigest()
        if digest != photo.sha256:
            raise ConfigError(
                f"{photo.path}: the file has changed since the run read it; leave it alone during the run"
            )
        image, mask, box = crop.scale(decode_bytes(data, photo.path, background=self.background).image), None, None
        if photo.mask is not None:
            full = photo.read_mask()
            mask, found = crop.scale(full), subject_box(full)
            box = scaled_box(found, photo.size, image.size) if found else None
        reference = None
        if photo.reference is not None:
            reference = crop.scale(photo.read_reference(self.background), image.size)
        scaled = _Scaled(image, mask, box, reference)
        with self._lock:
            self._scaled[key] = scaled
            while len(self._scaled) > 1 and sum(s.size for s in self._scaled.values()) > CACHE_BYTES:
                self._scaled.popitem(last=False)
        return scaled


class _Scaled(NamedTuple):
    """A photograph at training size, its mask, the subject's box in it, and its reference."""

    image: Image.Image
    mask: Image.Image | None
    box: Box | None
    reference: Image.Image | None = None

    @property
    def size(self) -> int:
        planes = 3 + (self.mask is not None) + 3 * (self.reference is not None)
        return self.image.width * self.image.height * planes


def _refuse_some(photos: Sequence[Photo], where: str) -> None:
    """Refuse photographs without a reference image beside some that have one."""
    without = [photo.path.name for photo in photos if photo.reference is None]
    if 0 < len(without) < len(photos):
        raise ConfigError(
            f"{where}: no reference image for {some(without)}, while others have one (NAME{REFERENCE_ENDING}.png); put "
            "one beside each photograph, or beside none"
        )


def _without_caption(photos: Sequence[Photo], where: str, every: bool, found: Sequence[str] = ()) -> list[str]:
    """A remark about the photographs that have no words.

    Args:
        found: what was remarked of files that could have held some.

    Raises:
        ConfigError: none has; or one has not though `every` is to.
    """
    without = [photo.path.name for photo in photos if photo.caption is None]
    if len(without) == len(photos):
        raise ConfigError(
            f"{where}: captions are asked for, and it holds none{''.join(f' ({text})' for text in found)}; write "
            f"{photos[0].path.stem}.txt beside {photos[0].path.name}, and so on, or leave captions off"
            if photos[0].row is None
            else f"{where}: captions are asked for, and every one is empty; name another caption_column"
        )
    if without and every:
        raise ConfigError(f"{where}: no caption for {some(without)}; write one for each image")
    return [f"{len(without)} of {len(photos)} images have no caption: {some(without)}"] if without else []
