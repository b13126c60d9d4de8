"""The transforms that diffusers' DreamBooth scripts use, on Pillow and torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from PIL import Image


class InterpolationMode(Enum):
    NEAREST = Image.Resampling.NEAREST
    BILINEAR = Image.Resampling.BILINEAR
    BICUBIC = Image.Resampling.BICUBIC
    LANCZOS = Image.Resampling.LANCZOS


class Compose:
    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    """The shorter side to `size`."""

    def __init__(self, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR):
        self.size, self.filter = size, interpolation.value

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = self.size / min(image.size)
        return image.resize((round(image.width * scale), round(image.height * scale)), self.filter)


class _Crop:
    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        left, top = self.corner(image.width - self.size, image.height - self.size)
        return image.crop((left, top, left + self.size, top + self.size))

    def corner(self, width: int, height: int) -> tuple[int, int]:
        raise NotImplementedError


class CenterCrop(_Crop):
    def corner(self, width: int, height: int) -> tuple[int, int]:
        return width // 2, height // 2


class RandomCrop(_Crop):
    def corner(self, width: int, height: int) -> tuple[int, int]:
        return random.randint(0, width), random.randint(0, height)


class ToTensor:
    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = mean[0], std[0]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - self.mean) / self.std
