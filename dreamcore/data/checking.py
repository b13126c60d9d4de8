"""Every photograph looked at before any costly work; what is wrong with any of them is told in one error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from ..io.progress import each
from .decode import decode_bytes, read_bytes
from .finding import some
from .header import read_header
from .photo import Photo

FULL_CHECK = 500
"""Images of a folder or table that are decoded in full when it is opened."""


def check_photos(photos: Sequence[Photo], masks: Mapping[Path, Path] | None, remarks: list[str]) -> list[Photo]:
    """The photographs with size, hashes and mask filled in.

    Args:
        photos: with path, caption and reference.
        masks: image -> its mask; None where masks are not wanted.
        remarks: gets what is worth a word.

    Raises:
        ConfigError: naming each that is damaged, up to 20.
    """
    check = _decoded if len(photos) <= FULL_CHECK else _indexed
    checked, wrong = list[Photo](), list[str]()
    for photo in each(photos, "looking at photographs"):
        try:
            found, alpha = check(photo, remarks)
            found = _with_reference(found)
            checked.append(found if masks is None else _with_mask(found, alpha, masks))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        more = [f"and {len(wrong) - 20} more"] if len(wrong) > 20 else []
        raise ConfigError("\n".join(wrong[:20] + more))
    without = [photo.path.name for photo in checked if photo.mask is None]
    if masks is not None and without:
        remarks.append(f"{len(without)} of {len(checked)} images have no mask, all of them counts: {some(without)}")
    return checked


def copies(photos: Sequence[Photo]) -> list[str]:
    """Which of the photographs are the same, byte for byte, in words."""
    first: dict[str, str] = {}
    names = []
    for photo in photos:
        same = first.setdefault(photo.sha256, photo.path.name)
        if same != photo.path.name:
            names.append(f"{photo.path.name} is {same}")
    return [f"the same file more than once, each counts: {some(names)}"] if names else []


def _decoded(photo: Photo, remarks: list[str]) -> tuple[Photo, bool]:
    """A photograph read in full, and whether it has an alpha channel."""
    data = photo.data()
    decoded = decode_bytes(data, photo.path, keep_alpha=True)
    if decoded.frames > 1:
        used = "main one" if decoded.kind == "HEIF" else "first"
        remarks.append(f"{photo.path.name} holds {decoded.frames} frames or pages: the {used} is used")
    digest = hashlib.sha256(data).hexdigest()
    return replace(photo, size=decoded.image.size, sha256=digest), decoded.image.mode == "RGBA"


def _indexed(photo: Photo, remarks: list[str]) -> tuple[Photo, bool]:
    """A photograph of which only a quick look is taken.  A row of a table has to be read for that, and is hashed whole;
    so has a file in a zip, whose hash is that of the file unpacked."""
    data = None if photo.is_file else photo.data()
    header = read_header(photo.path, data)
    if not header.sure:
        return _decoded(photo, remarks)
    digest = header.digest if photo.row is None or data is None else hashlib.sha256(data).hexdigest()
    return replace(photo, size=header.size, sha256=digest), header.alpha


def _with_mask(photo: Photo, alpha: bool, masks: Mapping[Path, Path]) -> Photo:
    """The photograph with its mask, which is read and checked here."""
    file = masks.get(photo.path, photo.path if alpha else None)
    if file is None:
        return photo
    own = "" if file == photo.path else hashlib.sha256(read_bytes(file)).hexdigest()
    masked = replace(photo, mask=file, mask_sha256=own)
    masked.read_mask()
    return masked


def _with_reference(photo: Photo) -> Photo:
    """The photograph with its reference image, where it has one, read, checked and hashed here."""
    if photo.reference is None:
        return photo
    photo.read_reference()
    return replace(photo, reference_sha256=hashlib.sha256(photo.reference_data()).hexdigest())
