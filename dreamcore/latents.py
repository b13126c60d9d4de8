"""The clean latents of a run: each image variant encoded once, and exactly those that the plan will ask for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .data import Crop, ImageFolder
from .files import explain_disk_errors
from .plan import Sample
from .rng import Purpose, generator

Float = NDArray[np.float32]
Encode = Callable[[Float], tuple[Float, Float]]


@dataclass(frozen=True)
class Images:
    """The images of one row kind, and how each becomes a training image."""

    folder: ImageFolder
    crop: Crop


class Latents:
    """Mean and standard deviation of the latents of any sample.

    Args:
        seed: the run's seed, which keys the crops and flips.
        images: by row kind (`plan.INSTANCE`, `plan.CLASS`).
        encode: the backend's `encode_images`.
        memory_bytes: what is cached beyond this lies in a file, deleted at the end, in `scratch`.
    """

    def __init__(self, seed: int, images: dict[int, Images], encode: Encode, memory_bytes: float, scratch: Path):
        self._seed, self._images, self._encode = seed, images, encode
        self._memory_bytes, self._scratch = memory_bytes, scratch
        self._place: dict[tuple[int, int, int], int] = {}
        self._moments: Float | None = None

    def fill(self, samples: Iterable[Sample], progress: Callable[[int, int], None]) -> None:
        """Encode every variant that `samples` use; `progress(done, of)` is called after each."""
        wanted = sorted({(s.row, s.image, s.variant) for s in samples if s.variant is not None})
        for number, key in enumerate(wanted):
            moments = np.stack(self._moments_of(*key, place=0))
            if self._moments is None:
                self._moments = self._room((len(wanted), *moments.shape))
            self._moments[number] = moments
            self._place[key] = number
            progress(number + 1, len(wanted))

    def __call__(self, sample: Sample) -> tuple[Float, Float]:
        """Mean and standard deviation, each [C, h, w]."""
        if sample.variant is not None and self._moments is not None:
            number = self._place.get((sample.row, sample.image, sample.variant))
            if number is not None:
                return self._moments[number, 0], self._moments[number, 1]
        return self._moments_of(sample.row, sample.image, sample.variant, sample.place)

    def _moments_of(self, row: int, image: int, variant: int | None, place: int) -> tuple[Float, Float]:
        """Encoded one at a time, so that the bits do not depend on which others are encoded beside it."""
        images = self._images[row]
        where = (place, row, 1) if variant is None else (image, variant, 2 + row)
        pixels = images.folder.pixels(image, images.crop, generator(self._seed, Purpose.TRANSFORM, *where))
        mean, std = self._encode(pixels[None])
        return mean[0], std[0]

    def _room(self, shape: tuple[int, ...]) -> Float:
        size = int(np.prod(shape)) * 4
        if size <= self._memory_bytes:
            return np.empty(shape, np.float32)
        with explain_disk_errors(f"keeping latents in {self._scratch}"):
            file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115  (lives as long as the array)
            os.posix_fallocate(file.fileno(), 0, size)  # a hole that cannot be filled kills
            return np.memmap(file, np.float32, "r+", shape=shape)
