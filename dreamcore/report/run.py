"""A run as a program, or a notebook, looks at it afterwards: its numbers as arrays, its pictures, its report.

Everything is read from the run's folder when it is asked for, so that it is true of a run that still trains, too.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config.files import read_config_file
from ..data.decode import decode
from ..errors import ConfigError
from ..io.names import CONFIG, METRICS, REPORT, VALIDATION
from ..runs.checkpoint import list_checkpoints
from ..runs.next_steps import NextSteps, next_steps
from ..runs.status import State, Status
from ..runs.watching import find_runs, look_at
from ..track.metrics import read_lines
from .collect import collect, is_number
from .notebook import card


class Metrics(Sequence[dict[str, Any]]):
    """Records of a run, one an update, which are columns too, as in a structured array of NumPy.

    `metrics["loss"]` is an array of all updates' losses, `metrics[-1]` the last update's record,
    `pandas.DataFrame(metrics)` a table.
    """

    def __init__(self, records: Sequence[dict[str, Any]]):
        self._records = list(records)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(dict.fromkeys(name for record in self._records for name in record))

    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Metrics: ...
    def __getitem__(self, key: str | int | slice) -> NDArray[Any] | dict[str, Any] | Metrics:
        """A column, a record, or some records.

        Returns:
            Of a column: shape (records,); `step` in int64, all others in float64, NaN where a record has none.

        Raises:
            KeyError: no record has that column.
        """
        if isinstance(key, slice):
            return Metrics(self._records[key])
        if isinstance(key, int | np.integer):
            return self._records[key]
        if key not in self.names and self._records:
            raise KeyError(f"{key}: there are {', '.join(self.names)}")
        if key == "step":
            return np.array([record["step"] for record in self._records], np.int64)
        found = (record.get(key) for record in self._records)
        return np.array([value if is_number(value) else np.nan for value in found], np.float64)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._records)

    def __eq__(self, other: object) -> bool:
        return self._records == (other._records if isinstance(other, Metrics) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        last = f", the last {self._records[-1]}" if self._records else ""
        return f"<{len(self)} records of {', '.join(self.names) or 'nothing'}{last}>"


@dataclass(frozen=True)
class Report:
    """A run's report.html, which a notebook shows whole."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, from which nothing is run, asked for or styled outside it."""
        try:
            page = self.path.read_text(encoding="utf-8")
        except OSError as error:
            return f"<p>{escape(str(self.path))}: {escape(error.strerror or str(error))}</p>"
        return (
            f'<iframe sandbox title="Report of {escape(self.path.parent.name)}" srcdoc="{escape(page)}" '
            'style="width: 100%; height: 48rem; border: 1px solid #8884"></iframe>'
        )


@dataclass(frozen=True)
class Run:
    """A run: what `train` returns, and `open_run`.  A notebook shows it as a card."""

    folder: Path
    """Its results."""
    updates: int
    """Updates made, those before a resumption included; of one at work, as of when it was opened."""
    exit_code: int
    """0; or 128 + the signal that stopped it early, with a checkpoint saved; as by SIGTERM where a command or a
    callback did.  Of an opened run 1 where it failed or is dead."""
    stopped_by: str = ""
    """What did: SIGINT, SIGTERM, dreambooth stop, or a callback, with its reason."""

    @property
    def metrics(self) -> Metrics:
        """Every update's `step` (from 1), `loss`, `loss_instance`, `loss_prior`, `lr`, `grad_norm`, `seconds` ...: the
        records of metrics.jsonl.  Ask once for columns of the same length of a run that still trains."""
        return Metrics(read_lines(self.folder / METRICS))

    @property
    def validation(self) -> Metrics:
        """`step` and `validation_loss`, on held-out photographs: the records of validation.jsonl."""
        return Metrics(read_lines(self.folder / VALIDATION))

    @property
    def images(self) -> dict[int, list[Path]]:
        """Validation images: the update that they were made after (0: before training), ascending -> files, in the
        order of their seeds."""
        return {update: list(files.values()) for update, files in collect(self.folder).samples.items()}

    def pictures(self, update: int | None = None) -> list[Image.Image]:
        """Validation images, in RGB.

        Args:
            update: that they were made after; the last ones where it is left out.

        Raises:
            ConfigError: there are none, or a file is damaged.
        """
        found = self.images
        if update is None and found:
            update = max(found)
        if update is None or update not in found:
            there = f"there are some of {', '.join(map(str, found))}" if found else "it has none at all"
            raise ConfigError(f"{self.folder}: no validation images of update {update}; {there}")
        return [decode(file) for file in found[update]]

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Update -> its checkpoint, ascending."""
        return dict(list_checkpoints(self.folder))

    @property
    def settings(self) -> dict[str, Any]:
        """What every setting came to.

        Raises:
            ConfigError: config.yaml is gone or damaged.
        """
        return dict(read_config_file(self.folder / CONFIG))

    @property
    def status(self) -> Status:
        """What it is doing, now.

        Raises:
            ConfigError: the folder holds no run any more.
        """
        return _seen(self.folder)

    @property
    def state(self) -> State:
        """`training`, `stopped`, `finished`, `failed`, `dead` ...

        Raises:
            ConfigError: the folder holds no run any more.
        """
        return self.status.state

    @property
    def report(self) -> Report:
        """Its report.html; a notebook shows the whole page."""
        return Report(self.folder / REPORT)

    @property
    def next_steps(self) -> NextSteps:
        """What one does with it: `words` that call the subject, the command lines to `generate` and to `go_on`, and
        what each of its `files` is for."""
        return next_steps(self.folder)

    def _repr_html_(self) -> str:
        return card(self.folder)


def open_run(folder: Path) -> Run:
    """The run in a folder, whoever made it and whatever it is doing.

    Raises:
        ConfigError: no such folder, or no run in it.
    """
    status = _seen(folder)
    by = (status.reason or "").removeprefix("by ") if status.state == "stopped" else ""
    code = 1 if status.state in ("failed", "dead") else 0
    if by:
        code = 128 + (signal.Signals[by] if by in signal.Signals.__members__ else signal.SIGTERM)
    return Run(folder, status.update, code, by)


def _seen(folder: Path) -> Status:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; a run's output_dir is one")
    if (found := look_at(folder)) is not None:
        return found.status
    below = [str(run.folder) for run in find_runs([folder])[:5]]
    hint = f"; runs below it: {', '.join(below)}" if below else "; a run's folder holds its status.json, metrics.jsonl"
    raise ConfigError(f"{folder}: holds no run{hint}")
