"""`metrics.jsonl`: one JSON object a line, one line an update, whole lines only.

Each line goes to the system in one unbuffered write, so a killed process loses none that was reported, and a resumed
run first drops what lies beyond its checkpoint.  Measurements that do not belong to an update (held-out loss) go to
`validation.jsonl` in the same form.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..io.files import write_atomically
from ..io.names import METRICS, VALIDATION
from .base import Level, RunInfo


class MetricsFile:
    """Writes metrics.jsonl and validation.jsonl of the run folder.

    Raises:
        RunError: a line cannot be written (disk full ...); the lines before it stay whole.
    """

    def __init__(self) -> None:
        self._info: RunInfo | None = None
        self._files: dict[str, FileIO] = {}
        self._last = 0

    def start(self, info: RunInfo) -> None:
        """Open for appending, without the lines of updates that this run makes anew."""
        self._info, self._last = info, info.first_update - 1
        truncate_metrics(info.folder / METRICS, self._last)
        # Step 0, before training, belongs to a run that starts afresh too; a resumed one keeps its checkpoint's.
        truncate_metrics(info.folder / VALIDATION, self._last if self._last else -1)
        self._open(METRICS)

    def update(self, record: Mapping[str, float | int]) -> None:
        self._write(METRICS, record)
        self._last = int(record["step"])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(VALIDATION, {"step": step, **values})

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        return None

    def message(self, text: str, level: Level = "info") -> None:
        return None

    def close(self, outcome: str) -> None:
        files, self._files = self._files, {}
        for name, file in files.items():
            try:
                with file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise self._failed(name, error) from error

    def _open(self, name: str) -> FileIO:
        assert self._info is not None, "start comes first"
        try:
            self._files[name] = FileIO(self._info.folder / name, "a")
        except OSError as error:
            raise self._failed(name, error) from error
        return self._files[name]

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        file = self._files.get(name) or self._open(name)
        line = json_line(record)
        end = os.fstat(file.fileno()).st_size
        try:
            written = 0
            while written < len(line):  # a nearly full disk takes part of a line, and refuses the rest
                written += file.write(line[written:]) or 0
        except OSError as error:
            with suppress(OSError):
                file.truncate(end)
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: OSError) -> RunError:
        assert self._info is not None
        return RunError(
            f"{self._info.folder / name}: cannot be written ({error.strerror or error}). Intact: the metrics up to "
            f"update {self._last} and every finished checkpoint. Make room and resume from the latest checkpoint."
        )


def json_line(record: Mapping[str, Any]) -> bytes:
    """`record` as one line of JSON.  JSON knows no NaN and no infinity: such a value is written as null."""
    return json.dumps({key: _plain(value) for key, value in record.items()}, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> bool | int | float | None:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file up to its first damaged line; none where there is no such file."""
    return [record for record, _ in _whole_lines(path)]


def truncate_metrics(path: Path, last_step: int) -> None:
    """Keep only the whole lines with step ≤ `last_step`; the file is at every moment the old one or the new one.

    Raises:
        RunError: the new file cannot be written; the old one is then untouched.
    """
    kept = b"".join(line for record, line in _whole_lines(path) if record["step"] <= last_step)
    if not path.exists() or path.stat().st_size == len(kept):
        return
    try:
        write_atomically(path, kept)
    except OSError as error:
        raise RunError(f"{path}: cannot be rewritten ({error.strerror or error}); it is as it was") from error


def _whole_lines(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    lines: list[tuple[dict[str, Any], bytes]] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(record, dict) or not isinstance(record.get("step"), int):
            break
        lines.append((record, line))
    return lines
