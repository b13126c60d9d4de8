"""From the setting `report_to` to trackers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from ..config.names import nearest
from ..errors import ConfigError
from .base import Tracker, Trackers
from .console import Console
from .files import LogFile
from .metrics import MetricsFile
from .tensorboard import TensorBoard
from .visualdl import VisualDL
from .wandb import WandB

OPTIONAL: dict[str, tuple[str, Callable[[], Tracker]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "visualdl": ("visualdl", VisualDL),
    "wandb": ("wandb", WandB),
}
"""Name in `report_to` -> the package that it needs, and its tracker."""


def make_trackers(report_to: str, *, main_process: bool) -> Trackers:
    """The trackers of a run: metrics.jsonl, log.txt, the console and those named; none but on the main process.

    Args:
        report_to: tensorboard, visualdl, wandb, several with commas, all (that are installed), or none.
        main_process: whether this process writes; the others get an empty fan-out, after the same checks.

    Raises:
        ConfigError: an unknown name, or a tracker that is not installed.
    """
    optional = [OPTIONAL[name][1]() for name in _chosen(report_to)]
    return Trackers([MetricsFile(), LogFile(), Console(), *optional]) if main_process else Trackers()


def _chosen(report_to: str) -> list[str]:
    names = [name.strip().lower() for name in report_to.split(",")]
    if names == ["none"]:
        return []
    if names == ["all"]:
        return [name for name, (package, _) in OPTIONAL.items() if find_spec(package)]
    for name in names:
        _check(name, report_to)
    return list(dict.fromkeys(names))


def _check(name: str, report_to: str) -> None:
    if name not in OPTIONAL:
        known = [*OPTIONAL, "all", "none"]
        if name in known:
            raise ConfigError(f"report_to: {name!r} stands alone; received {report_to!r}")
        near = nearest(name, known)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"report_to: {name!r} is not one of {', '.join(known)}{hint}")
    package = OPTIONAL[name][0]
    if not find_spec(package):
        raise ConfigError(
            f"report_to: {name} needs the package {package}, which is not installed: pip install {package}"
        )
