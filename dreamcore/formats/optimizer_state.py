"""The optimizer's state in files: AdamW's moments under published names, and counters, so that it travels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..io.names import OPTIMIZER_FILE
from .weights import Arrays, read_exactly, read_metadata, write_safetensors

ADAMW = "adamw"
FIRST, SECOND = ".exp_avg", ".exp_avg_sq"
"""Endings of the moments' names, COMPONENT.PARAMETER before them."""


class Counters(NamedTuple):
    """What an optimizer's state holds besides its arrays."""

    optimizer: str
    """The name that the state is kept under; only AdamW's travels between backends."""
    step: int
    """Updates that were applied."""
    scaler: dict[str, Any]
    """fp16's loss scale (`LossScale`); empty without one."""


def save_optimizer(folder: Path, arrays: Arrays, counters: Counters) -> None:
    """Write an optimizer's state."""
    write_safetensors(folder / OPTIMIZER_FILE, arrays, {"counters": json.dumps(counters._asdict())})


def read_counters(folder: Path, optimizer: str = ADAMW) -> Counters:
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
    return Counters(optimizer, int(stored["step"]), stored.get("scaler") or {})


def read_moments(folder: Path, shapes: Mapping[str, Sequence[int]], counters: Counters) -> Arrays:
    """AdamW's moments of parameters of these names and shapes; there are none before the first update.

    Raises:
        RunError: moments that are missing, left over or of another shape.
    """
    if not counters.step:
        return {}
    wanted = {f"{name}{ending}": shape for name, shape in shapes.items() for ending in (FIRST, SECOND)}
    return read_exactly(folder / OPTIMIZER_FILE, wanted, "what this run trains")
