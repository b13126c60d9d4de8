"""How a photograph becomes a training image: scaled without distortion, cropped, perhaps mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Crop:
    """The transform of a photograph.

    Later: aspect-ratio buckets (buckets.py) give each photograph a `Crop` of its own height and width; crop records
    for size-conditioned families and crops around the subject (records.py) follow the same two steps, `scaled_size`
    and `place`.
    """

    height: int
    """Pixels of the training image."""
    width: int
    """Pixels of the training image."""
    center_crop: bool
    """Crop around the middle; otherwise at random."""
    random_flip: bool
    """Mirror left to right with probability 1/2."""

    @property
    def random(self) -> bool:
        """Whether two samples of a photograph can differ."""
        return self.random_flip or not self.center_crop

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(W, H) of the smallest picture of the photograph's aspect ratio that covers the crop."""
        scale = max(self.width / size[0], self.height / size[1])
        return max(self.width, round(size[0] * scale)), max(self.height, round(size[1] * scale))

    def scale(self, image: Image.Image) -> Image.Image:
        """The picture at `scaled_size`, antialiased (Lanczos)."""
        return image.resize(self.scaled_size(image.size), Image.Resampling.LANCZOS)

    def place(self, size: tuple[int, int], rng: np.random.Generator | None) -> tuple[int, int, bool]:
        """(left, top, mirrored) of the crop in a scaled picture of `size` (W, H).

        `rng` may be None where nothing is random.  The corner counts in the picture before it is mirrored.
        """
        free_w, free_h = size[0] - self.width, size[1] - self.height
        if self.center_crop:
            left, top = free_w // 2, free_h // 2
        else:
            assert rng is not None, "a random crop needs a generator"
            left, top = int(rng.integers(free_w + 1)), int(rng.integers(free_h + 1))
        if not self.random_flip:
            return left, top, False
        assert rng is not None, "a random flip needs a generator"
        return left, top, bool(rng.random() < 0.5)

    def apply(self, scaled: Image.Image, rng: np.random.Generator | None) -> NDArray[np.float32]:
        """[3, height, width] in [−1, 1] from a picture that `scale` gave."""
        left, top, mirrored = self.place(scaled.size, rng)
        part = scaled.crop((left, top, left + self.width, top + self.height))
        if mirrored:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.ascontiguousarray(from_uint8(np.asarray(part)).transpose(2, 0, 1))


def from_uint8(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0…255 to [−1, 1], any shape."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """[−1, 1] to 0…255, rounded to nearest; what lies outside is clipped; any shape."""
    values: NDArray[np.uint8] = np.rint((np.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8)
    return values
