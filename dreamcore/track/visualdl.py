"""VisualDL, Paddle's board, under the names that ppdiffusers' trainers use: train/step_loss, train/lr.

VisualDL's `LogWriter` hands records to a thread by a queue: on a full disk the thread dies and the next record waits
for ever.  Its records are written directly here, so an error comes back to the caller.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .base import Level, RunInfo
from .tensorboard import tag

NAMES = {"loss": "step_loss"}
"""Measurements of an update that ppdiffusers calls otherwise."""


class VisualDL:
    """Scalars under train/ and validation/, validation images by seed; `visualdl --logdir LOGGING_DIR` shows them."""

    def __init__(self) -> None:
        self._file: FileIO | None = None

    def start(self, info: RunInfo) -> None:
        from visualdl.component.base_component import meta_data

        folder = info.logging_dir / "visualdl"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"vdlrecords.{time.time_ns() // 10**6}.log.{info.first_update}"
        self._file = FileIO(folder / name, "w")
        self._write(meta_data(display_name=info.folder.resolve().name, walltime=_now()))

    def update(self, record: Mapping[str, float | int]) -> None:
        step = int(record["step"])
        self._scalars(step, {f"train/{NAMES.get(k, k)}": v for k, v in record.items() if k != "step"})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._scalars(step, {tag(name): value for name, value in values.items()})

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        from visualdl.component.base_component import image, text

        for index, path in enumerate(paths):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._write(image(f"validation/picture_{index}", pixels, step, _now()))
        self._write(text("validation/prompt", prompt, step, _now()))

    def message(self, text: str, level: Level = "info") -> None:
        return None

    def close(self, outcome: str) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        from visualdl.component.base_component import scalar

        for name, value in values.items():
            self._write(scalar(name, value, step, _now()))

    def _write(self, record: Any) -> None:
        """A record is its length (8 bytes, little-endian) and itself."""
        assert self._file is not None, "start comes first"
        message = record.SerializeToString()
        content = struct.pack("<Q", len(message)) + message
        if self._file.write(content) != len(content):
            raise OSError(f"{self._file.name}: the disk is full")


def _now() -> int:
    """Milliseconds since 1970."""
    return round(time.time() * 1000)
