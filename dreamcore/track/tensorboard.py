"""TensorBoard, through tensorboardX, which needs neither TensorFlow nor torch.

tensorboardX's `SummaryWriter` hands events to a thread by a queue of ten: on a full disk the thread dies and the
eleventh event waits for ever.  Its parts are used directly here, so an error comes back to the caller.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .base import Level, RunInfo


class TensorBoard:
    """Scalars under train/ and validation/, validation images by seed, the configuration as text."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, info: RunInfo) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import text

        info.logging_dir.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(info.logging_dir / "events"), f".{os.getpid()}.{info.first_update}")
        # A resumed run makes TensorBoard forget what an earlier process logged beyond the checkpoint.
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=info.first_update, session_log=start))
        settings = json.dumps(dict(info.settings), indent=2, default=str, ensure_ascii=False)
        self._add(info.first_update, text("configuration", "    " + settings.replace("\n", "\n    ")))

    def update(self, record: Mapping[str, float | int]) -> None:
        self._scalars(int(record["step"]), {f"train/{k}": v for k, v in record.items() if k != "step"})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._scalars(step, {tag(name): value for name, value in values.items()})

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        from tensorboardX.summary import image, text

        for index, path in enumerate(paths):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._add(step, image(f"validation/picture_{index}", pixels, dataformats="HWC"))
        self._add(step, text("validation/prompt", prompt))
        self._writer.flush()

    def message(self, text: str, level: Level = "info") -> None:
        return None

    def close(self, outcome: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        # tensorboardX.summary.scalar prints a line for every NaN; TensorBoard itself draws them as such.
        points = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._add(step, Summary(value=points))
        self._writer.flush()

    def _add(self, step: int, summary: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))


def tag(name: str) -> str:
    """TensorBoard's and W&B's name of a validation's measurement, so that these get a section: validation_loss is
    validation/loss."""
    return f"validation/{name.removeprefix('validation_')}"
