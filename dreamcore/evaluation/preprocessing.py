"""Pictures on their way into an image encoder: resized, cropped and normalised as its preprocessor_config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError
from ..models.fields import read_json

FILE = "preprocessor_config.json"
BILINEAR = 2
"""Pillow's number, which these files hold."""


@dataclass(frozen=True)
class Preprocessing:
    """As transformers' image processors of CLIP, ViT and DINOv2 do it with Pillow."""

    size: Mapping[str, int] | None
    """The shortest edge, or height and width, that a picture is resized to; None: not at all."""
    resample: int
    crop: tuple[int, int] | None
    """Height and width of what is cut from the middle."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path, *, square: bool) -> Preprocessing:
        """Of an encoder's folder.

        Args:
            square: what files of before 2022 mean that give one number for the size: height and width, as ViT's do, or
                the shortest edge, as CLIP's do.

        Raises:
            ConfigError: the file is missing or says something else than how pictures are prepared.
        """
        file = folder / FILE
        said = read_json(file)
        try:
            return cls(
                _size(said["size"], square) if said.get("do_resize", True) else None,
                int(said.get("resample", BILINEAR)),
                _pair(said["crop_size"]) if said.get("do_center_crop", "crop_size" in said) else None,
                tuple(float(value) for value in said["image_mean"]),
                tuple(float(value) for value in said["image_std"]),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"{file}: does not say how pictures are prepared: {error!r}") from None

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[3, h, w] of a picture [H, W, 3]."""
        image = Image.fromarray(picture)
        if self.size is not None:
            image = image.resize(_target(image.size, self.size), Image.Resampling(self.resample))
        pixels = np.asarray(image, np.float32)
        if self.crop is not None:
            pixels = _middle(pixels, *self.crop)
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        return np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1))


def _size(said: Any, square: bool) -> Mapping[str, int]:
    if isinstance(said, int):
        return {"height": said, "width": said} if square else {"shortest_edge": said}
    found = {name: int(said[name]) for name in ("shortest_edge", "height", "width") if said.get(name)}
    if set(found) not in ({"shortest_edge"}, {"height", "width"}):
        raise ValueError(f"size {said}")
    return found


def _pair(said: Any) -> tuple[int, int]:
    return (said, said) if isinstance(said, int) else (int(said["height"]), int(said["width"]))


def _target(size: tuple[int, int], wanted: Mapping[str, int]) -> tuple[int, int]:
    """Width and height that Pillow resizes to."""
    if "shortest_edge" not in wanted:
        return wanted["width"], wanted["height"]
    edge, (width, height) = wanted["shortest_edge"], size
    return (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)


def _middle(pixels: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Of a picture that is smaller the missing edges are black."""
    missing = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if any(missing):
        around = [(-(-extra // 2), extra // 2) for extra in missing]
        pixels = np.pad(pixels, [*around, (0, 0)])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
