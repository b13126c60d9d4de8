"""What training would see of a folder, and what may spoil it: the substance of `dreambooth data FOLDER`.

The command opens the folder (a ConfigError there means that training would not start, and is its exit
status), calls `inspect` with the crops, prompts and tokenizer of the configuration, prints `table()` or, with --json,
`as_dict()`, and writes `sheet.draw_sheet`.  Warnings never stop a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ..io.progress import each
from .crop import Crop
from .decode import decode_bytes
from .finding import some
from .folder import ImageFolder
from .masks import Box, scaled_box, subject_box
from .measures import (
    BLUR_SIDE,
    BLURRED,
    SAME_SURROUNDINGS,
    SAME_VIEW,
    blur,
    median_distance,
    median_likeness,
    near_duplicates,
    perceptual_hash,
    structure,
    surroundings,
)
from .photo import Photo

FEW, MANY = 3, 100
"""Fewer or more instance images than these are remarked; the paper (2208.12242) uses 3–5."""
ENLARGED = 1.05
LITTLE_USED = 0.5
COMPARED = 1000
"""Photographs that are compared with each other, at most."""
LOOKED_AT = 50
"""Photographs that a run looks at before it trains, at most: they stay in memory, so that none is decoded twice."""
THUMBNAIL = 192
"""Longer side of a thumbnail in pixels."""
THUMBNAILS = 200
"""Photographs that get one."""


@dataclass(frozen=True)
class Remark:
    """Something that may spoil the result, and what helps."""

    kind: str
    """In a word or two: "too small"."""
    text: str
    """What was found, and the remedy."""


@dataclass(frozen=True)
class Row:
    """One photograph as training would see it."""

    name: str
    kind: str
    """Pillow's name of the format."""
    mode: str
    """Pillow's name of the pixels' form in the file: RGB, CMYK, I;16 ..."""
    orientation: int
    """EXIF orientation, 1…8."""
    size: tuple[int, int]
    """(W, H) upright."""
    target: tuple[int, int]
    """(W, H) of the training image: the bucket, where there are several."""
    crop: Box
    """(left, top, right, bottom) in the upright photograph: the crop, or where it is random, the middle one of them."""
    reach: Box
    """What any of the crops can show, where they are random; otherwise the crop."""
    enlarged: float
    """Pixels of the training image to one of the photograph, along a side; above 1 detail is missing."""
    blur: float
    """`measures.blur` at training size."""
    prompt: str | None
    tokens: int | None
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Inspection:
    """A folder as training would see it."""

    rows: tuple[Row, ...]
    remarks: tuple[Remark, ...]
    """About the photographs together."""
    notes: tuple[str, ...]
    """What was skipped."""
    thumbnails: tuple[Image.Image, ...]
    """Of the first `THUMBNAILS` photographs."""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows, as text."""
        head = ["image", "format", "mode", "turn", "size", "crop", "trained at", "blur", "tokens", "prompt", "remarks"]
        rows = []
        for row in self.rows:
            left, top, right, bottom = row.crop
            tokens = "" if row.tokens is None else str(row.tokens)
            cells = [row.name, row.kind, row.mode, str(row.orientation), "×".join(map(str, row.size))]
            first, last = row.reach[:2], (row.reach[2] - right + left, row.reach[3] - bottom + top)
            places = [f"{a}" if a >= b else f"{a}…{b}" for a, b in zip(first, last, strict=True)]
            crop = "+".join([f"{right - left}×{bottom - top}", *places])
            cells += [crop, "×".join(map(str, row.target)), f"{row.blur:.2f}"]
            rows.append([*cells, tokens, row.prompt or "", ", ".join(remark.kind for remark in row.remarks)])
        return head, rows

    def as_dict(self) -> dict[str, Any]:
        """Everything but the thumbnails, ready for JSON."""
        return {
            "images": [asdict(row) for row in self.rows],
            "remarks": [asdict(remark) for remark in self.remarks],
            "notes": list(self.notes),
        }


def inspect(
    folder: ImageFolder,
    crops: Sequence[Crop],
    *,
    prompts: Sequence[str] | None = None,
    count_tokens: Callable[[str], int] | None = None,
    window: int | None = None,
) -> Inspection:
    """Look at every photograph of a folder.

    Args:
        folder: the photographs.
        crops: each one's transform (`bucket_crops`, or the same for all).
        prompts: each one's prompt; left out, its caption.
        count_tokens: tokens of a prompt, without begin and end marks.
        window: tokens of a prompt that the text encoder sees.

    Raises:
        ConfigError: a file has gone or is damaged.
    """
    rows, thumbnails, seen = list[Row](), list[Image.Image](), _Seen()
    pairs = list(zip(folder.photos, crops, strict=True))
    for number, (photo, crop) in enumerate(each(pairs, "measuring photographs")):
        decoded = decode_bytes(photo.data(), photo.path, background=folder.background)
        prompt = photo.caption if prompts is None else prompts[number]
        tokens = count_tokens(prompt) if count_tokens and prompt is not None else None
        shrinks = min(crop.scaled_size(photo.size)) < min(photo.size)  # what grows tells no more, and strips grow huge
        measured = crop.scale(decoded.image) if shrinks else decoded.image
        seen.add(photo.path.name, measured)
        cut, reach, enlarged, blurred, remarks = _measured(photo, crop, measured)
        if tokens is not None and window is not None and tokens > window:
            text = f"the prompt has {tokens} tokens and the text encoder sees {window}: shorten it"
            remarks.append(Remark("long prompt", text))
        form, target = (decoded.kind, decoded.mode, decoded.orientation), (crop.width, crop.height)
        words = (prompt, tokens, tuple(remarks))
        rows.append(Row(photo.path.name, *form, photo.size, target, cut, reach, enlarged, blurred, *words))
        if number < THUMBNAILS:
            thumbnails.append(_thumbnail(decoded.image))
    return Inspection(tuple(rows), tuple(seen.remarks(len(rows))), tuple(folder.notes), tuple(thumbnails))


def remarks_in_short(folder: ImageFolder, crops: Sequence[Crop]) -> list[str]:
    """What `inspect` remarks of a folder's first photographs, a line for each kind, for a run's log."""
    seen, by_kind = _Seen(), dict[str, list[tuple[str, str]]]()
    count = len(folder.photos)
    looked_at = min(count, LOOKED_AT)
    for number in each(range(looked_at), "measuring photographs", looked_at):
        photo, scaled = folder.photos[number], folder.scaled(number, crops[number])
        seen.add(photo.path.name, scaled)
        for remark in _measured(photo, crops[number], scaled)[-1]:
            by_kind.setdefault(remark.kind, []).append((photo.path.name, remark.text))
    lines = []
    for kind, found in by_kind.items():
        (first, text), names = found[0], [name for name, _ in found]
        lines.append(f"{first}: {text}" if len(found) == 1 else f"{kind}: {some(names)}; {first}: {text}")
    lines += [remark.text for remark in seen.remarks(count)]
    if count > LOOKED_AT:
        lines.append(f"the first {LOOKED_AT} of {count} photographs were looked at; `dreambooth data` looks at all")
    return lines


@dataclass
class _Seen:
    """What photographs are compared by."""

    names: list[str] = field(default_factory=list)
    hashes: list[Any] = field(default_factory=list)
    mirrored: list[Any] = field(default_factory=list)
    rings: list[Any] = field(default_factory=list)
    shapes: list[Any] = field(default_factory=list)

    def add(self, name: str, image: Image.Image) -> None:
        """Measure one, at training size."""
        small = image.resize((64, 64), Image.Resampling.BOX)
        self.names.append(name)
        self.hashes.append(perceptual_hash(small))
        self.mirrored.append(perceptual_hash(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
        self.rings.append(surroundings(small))
        self.shapes.append(structure(small))

    def remarks(self, count: int) -> list[Remark]:
        """About the photographs together, of which there are `count`."""
        remarks = _count(count) + _alike(self.names, np.stack(self.hashes), np.stack(self.mirrored))
        if count >= FEW:
            remarks += _throughout(np.stack(self.rings[:COMPARED]), np.stack(self.shapes[:COMPARED]))
        return remarks


def _throughout(rings: np.ndarray[Any, Any], shapes: np.ndarray[Any, Any]) -> list[Remark]:
    """What all of the photographs have in common."""
    remarks = []
    if median_distance(rings) < SAME_SURROUNDINGS:
        text = "the surroundings look alike in all images and may be learnt as part of the subject: vary the place"
        remarks.append(Remark("one background", text))
    if median_likeness(shapes) > SAME_VIEW:
        text = "the middle looks alike in all images, as if in one pose at one distance, and the model may know no "
        remarks.append(Remark("one pose", text + "other: add images from other sides, nearer and farther"))
    return remarks


def _measured(photo: Photo, crop: Crop, image: Image.Image) -> tuple[Box, Box, float, float, list[Remark]]:
    """(crop, reach, enlarged, blur, remarks) of a photograph, `image` being at training size or smaller (see `Row`)."""
    mask, scaled = None if photo.mask is None else subject_box(photo.read_mask()), crop.scaled_size(photo.size)
    box = scaled_box(mask, photo.size, scaled) if mask else None
    left, top, _ = replace(crop, center_crop=True, random_flip=False).place(scaled, None, box)
    cut = scaled_box((left, top, left + crop.width, top + crop.height), scaled, photo.size)
    reach = scaled_box(crop.reach(scaled, box), scaled, photo.size)
    enlarged = max(crop.width / photo.size[0], crop.height / photo.size[1])
    blurred = blur(image, min(BLUR_SIDE, *scaled))
    return cut, reach, enlarged, blurred, _remarks(photo.size, enlarged, blurred, mask, cut)


def _remarks(size: tuple[int, int], enlarged: float, blurred: float, mask: Box | None, cut: Box) -> list[Remark]:
    remarks = []
    w, h = size
    if enlarged > ENLARGED:
        text = f"{w}×{h} is enlarged {enlarged:.1f} times: use a larger image or train at a lower resolution"
        remarks.append(Remark("too small", text))
    elif blurred > BLURRED:  # what is enlarged looks blurred anyway
        remarks.append(Remark("blurred", "hardly any fine detail: replace it by a sharp image, or leave it out"))
    used = (cut[2] - cut[0]) * (cut[3] - cut[1]) / (w * h)
    if used < LITTLE_USED:
        text = f"the crop shows {used:.0%} of the image: cut it to the subject yourself, or use aspect-ratio buckets"
        remarks.append(Remark("little used", text))
    if mask and (mask[0] == 0 or mask[1] == 0 or mask[2] == w or mask[3] == h):
        remarks.append(Remark("at the border", "the subject touches the border: use an image with room around it"))
    elif mask and (mask[0] < cut[0] or mask[1] < cut[1] or mask[2] > cut[2] or mask[3] > cut[3]):
        text = "the crop cuts the subject: cut the image to its shape, crop around the mask, or use buckets"
        remarks.append(Remark("subject cut", text))
    return remarks


def _count(count: int) -> list[Remark]:
    if count < FEW:
        text = f"{count} image{'s' * (count != 1)}: the model sees little else and may copy; 3–5 views are usual"
        return [Remark("few", text)]
    if count > MANY:
        text = f"{count} images: far more than a subject needs; give them captions, train longer, or choose the best"
        return [Remark("many", text)]
    return []


def _alike(names: Sequence[str], hashes: np.ndarray[Any, Any], mirrored: np.ndarray[Any, Any]) -> list[Remark]:
    plain = set(near_duplicates(hashes))
    pairs = sorted((i, j, "") for i, j in plain)
    pairs += sorted((i, j, " mirrored") for i, j in set(near_duplicates(hashes, mirrored)) - plain)
    said = [f"{names[j]} is nearly {names[i]}{how}" for i, j, how in pairs]
    return [Remark("near-duplicate", f"{text}, which then counts twice: delete one of them") for text in said]


def _thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return small
