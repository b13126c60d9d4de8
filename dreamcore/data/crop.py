"""How a photograph becomes a training image: scaled without distortion, cropped, perhaps mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class CropRecord:
    """What was cut out of which photograph: the micro-conditioning of families that know it (SDXL, 2307.01952, 2.2).

    A family's extra inputs are formed from it for each sample; class images have records of their own.
    """

    original: tuple[int, int]
    """(H, W) of the photograph, upright, before scaling."""
    corner: tuple[int, int]
    """(top, left) of the crop in the scaled photograph, which was mirrored first where the sample is."""
    target: tuple[int, int]
    """(H, W) of the training image."""
    mirrored: bool


class Place(NamedTuple):
    """Where a crop lies in a scaled image; its corner counts before it is mirrored."""

    left: int
    top: int
    mirrored: bool


@dataclass(frozen=True)
class Crop:
    """The transform of a photograph.  Buckets (buckets.py) give each photograph a `Crop` of its own shape."""

    height: int
    """Pixels of the training image."""
    width: int
    """Pixels of the training image."""
    center_crop: bool
    """Crop around the middle; otherwise at random."""
    random_flip: bool
    """Mirror left to right with probability 1/2."""
    subject: bool = False
    """Keep the subject, where a mask shows it, inside the crop; `center_crop` then centres on it."""
    interpolation: str = "lanczos"
    """How Pillow scales the photograph."""

    @property
    def random(self) -> bool:
        """Whether two samples of a photograph can differ."""
        return self.random_flip or not self.center_crop

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(W, H) of the smallest image of the photograph's aspect ratio that covers the crop."""
        scale = max(self.width / size[0], self.height / size[1])
        return max(self.width, round(size[0] * scale)), max(self.height, round(size[1] * scale))

    def scale(self, image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
        """The image at `scaled_size`, or at (W, H) that another one's is, antialiased, but for `nearest`."""
        return image.resize(size or self.scaled_size(image.size), Image.Resampling[self.interpolation.upper()])

    def place(
        self, size: tuple[int, int], rng: np.random.Generator | None, box: tuple[int, int, int, int] | None = None
    ) -> Place:
        """Where the crop lies in a scaled image.

        Args:
            size: (W, H) of the scaled image.
            rng: may be None where nothing is random.
            box: (left, top, right, bottom) of the subject in it.
        """
        if not self.subject or box is None:
            box = (0, 0, 0, 0)
        left = self._along(size[0] - self.width, self.width, box[0], box[2], rng)
        top = self._along(size[1] - self.height, self.height, box[1], box[3], rng)
        if not self.random_flip:
            return Place(left, top, mirrored=False)
        assert rng is not None, "a random flip needs a generator"
        return Place(left, top, mirrored=bool(rng.random() < 0.5))

    def _along(self, free: int, length: int, start: int, end: int, rng: np.random.Generator | None) -> int:
        """Where the crop begins on one axis: in 0…free, and such that the subject start…end is in it if it can be."""
        low, middle, high = self._range(free, length, start, end)
        if self.center_crop:
            return middle
        assert rng is not None, "a random crop needs a generator"
        return int(rng.integers(low, high + 1))

    def reach(self, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of what any crop of a scaled image can show; arguments as of `place`."""
        if not self.subject or box is None:
            box = (0, 0, 0, 0)
        left, x, right = self._range(size[0] - self.width, self.width, box[0], box[2])
        top, y, bottom = self._range(size[1] - self.height, self.height, box[1], box[3])
        if self.center_crop:
            left, top, right, bottom = x, y, x, y
        return left, top, right + self.width, bottom + self.height

    @staticmethod
    def _range(free: int, length: int, start: int, end: int) -> tuple[int, int, int]:
        """The first, the middle and the last beginning of a crop on one axis."""
        low, high, middle = 0, free, free // 2
        if end > start:
            middle = min(max((start + end - length) // 2, 0), free)
            low, high = max(0, end - length), min(free, start)
            if low > high:  # the subject is larger than the crop
                low = high = middle
            middle = min(max(middle, low), high)
        return low, middle, high

    def cut(self, scaled: Image.Image, place: Place) -> NDArray[np.uint8]:
        """[height, width, …] of an image or mask that `scale` gave."""
        left, top, mirrored = place
        part = scaled.crop((left, top, left + self.width, top + self.height))
        return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part)

    def record(self, original: tuple[int, int], place: Place) -> CropRecord:
        """The record of a crop at `place` of a photograph whose upright size is `original`, (W, H)."""
        left, top, mirrored = place
        if mirrored:
            left = self.scaled_size(original)[0] - self.width - left
        return CropRecord((original[1], original[0]), (top, left), (self.height, self.width), mirrored)


def to_planes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] of 0…255 to [3, H, W] in [−1, 1]."""
    return np.ascontiguousarray(from_uint8(pixels).transpose(2, 0, 1))


def from_uint8(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0…255 to [−1, 1], any shape."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """[−1, 1] to 0…255, rounded to nearest; what lies outside is clipped; any shape."""
    values: NDArray[np.uint8] = np.rint((np.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8)
    return values
