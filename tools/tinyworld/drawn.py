"""Drawn scenes as tensors, and contact sheets, for the training scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dreamcore.tinyworld.scenes import SIZE, Scene, scene_at


def pool(seed: int, count: int, wild: bool = False, allow_held_out: bool = False) -> tuple[list[Scene], torch.Tensor]:
    """`count` scenes: the truths, and uint8 [count, 3, 64, 64]."""
    drawn = [scene_at(seed, i, wild, allow_held_out)[:2] for i in range(count)]
    pixels = np.stack([np.asarray(image) for _, image in drawn])
    return [scene for scene, _ in drawn], torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_bytes(x: torch.Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [-1, 1] as uint8 [N, H, W, 3]."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def save_sheet(images: Sequence[NDArray[np.uint8]], columns: int, path: Path, zoom: int = 2) -> None:
    """A contact sheet, for the eye."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for i, image in enumerate(images):
        sheet.paste(Image.fromarray(image), (i % columns * SIZE, i // columns * SIZE))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST).save(path)
