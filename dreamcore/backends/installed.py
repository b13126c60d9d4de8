"""Which backends are installed, and which one a run takes; neither a framework nor NumPy is imported."""

from __future__ import annotations

import os
from importlib import metadata
from importlib.util import find_spec

from ..errors import ConfigError, to_install

ENTRY_POINTS = "dreambooth.backends"
RANK_VARIABLES = {"torch": "RANK", "paddle": "PADDLE_TRAINER_ID", "mindspore": "RANK_ID"}
"""Where each launcher says which process this is."""

SIZE_VARIABLES = {"torch": "WORLD_SIZE", "paddle": "PADDLE_TRAINERS_NUM", "mindspore": "MS_WORKER_NUM"}
"""Where each launcher says how many there are."""


def installed_backends() -> list[str]:
    """Backends whose framework is installed; nothing is imported."""
    return [name for name in entry_points() if name not in RANK_VARIABLES or find_spec(name) is not None]


def choose_backend(name: str | None) -> str:
    """The backend to use.

    Raises:
        ConfigError: none or several installed and none named, or the named one is not there.
    """
    found = installed_backends()
    if name is None:
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigError(f"backend: none is installed; {to_install('torch')}, or paddle, or mindspore")
        raise ConfigError(f"backend: several are installed ({', '.join(found)}); choose one with --backend")
    if name not in entry_points():
        raise ConfigError(f"backend: {name!r} is not known; expected one of {', '.join(entry_points())}")
    if name not in found:
        raise ConfigError(f"backend: {name} is not installed; {to_install(name)}")
    return name


def launch_rank(backend: str) -> int:
    """This process's rank as its launcher's environment says it, known before the framework is imported.

    -1 is a process that does not train: the scheduler that msrun starts from the same command.
    """
    if backend == "mindspore" and os.environ.get("MS_ROLE") == "MS_SCHED":
        return -1
    return int(os.environ.get(RANK_VARIABLES.get(backend, ""), "0") or 0)


def launched_processes(backend: str) -> int:
    """How many processes this run has, as its launcher's environment says it."""
    said = os.environ.get(SIZE_VARIABLES.get(backend, ""), "")
    return max(int(said), 1) if said.isdecimal() else 1


def entry_points() -> dict[str, str]:
    """Backends by name: the entry-point group's, and those of this package where it runs uninstalled."""
    found = {e.name: e.value for e in metadata.entry_points(group=ENTRY_POINTS)}
    ours = {name: f"dreamcore.adapters.{name}.backend:load" for name in RANK_VARIABLES}
    return ours | found
