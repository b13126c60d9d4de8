"""The optimizer's state in files: arrays under published names, and counters, so that it travels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..io.names import OPTIMIZER_FILE
from .tensors import Entry, write_tensors
from .weights import Arrays, read_exactly, read_metadata, read_part


class Counters(NamedTuple):
    """What an optimizer's state holds besides its arrays."""

    optimizer: str
    """The name that the state is kept under; all but 8 bits' travels between backends."""
    step: int
    """Updates that were applied."""
    scaler: dict[str, Any]
    """fp16's loss scale (`LossScale`); empty without one."""
    shared: dict[str, float] = {}  # noqa: RUF012  # never changed
    """Numbers that all weights share."""


def save_optimizer(folder: Path, entries: Mapping[str, Entry], counters: Counters) -> None:
    """Write an optimizer's state: tensors under COMPONENT.PARAMETER.WHAT."""
    said = counters._asdict()
    if not said["shared"]:
        del said["shared"]
    write_tensors(folder / OPTIMIZER_FILE, entries, {"counters": json.dumps(said)})


def read_counters(folder: Path, optimizer: str) -> Counters:
    """The counters of a state.

    Raises:
        ConfigError: it is the state of another optimizer.
    """
    file = folder / OPTIMIZER_FILE
    stored = json.loads(read_metadata(file)["counters"])
    if stored.get("optimizer") != optimizer:
        raise ConfigError(
            f"resume_from_checkpoint: {file} holds the state of {stored.get('optimizer')}, and this run's optimizer is "
            f"{optimizer}; go on with that one, or give --reset_optimizer to start the optimizer afresh"
        )
    return Counters(optimizer, int(stored["step"]), stored.get("scaler") or {}, stored.get("shared") or {})


def read_state(
    folder: Path, shapes: Mapping[str, Sequence[int]], beside: Mapping[str, Sequence[int]] | None = None
) -> Arrays:
    """The arrays of a state by their names and shapes.

    Args:
        beside: others that the file has, which are left there.

    Raises:
        RunError: arrays that are missing, left over or of another shape.
    """
    file, what = folder / OPTIMIZER_FILE, "what this run trains"
    return read_part(file, shapes, beside, what) if beside else read_exactly(file, shapes, what)
