"""The device of this process, and the devices that MindSpore finds here, in words, for `dreambooth doctor`."""

from __future__ import annotations

import os

os.environ.setdefault("GLOG_v", "3")  # MindSpore warns at length of Ascend libraries that a CPU build lacks

import mindspore as ms

from dreamcore.config.common import DeviceSettings
from dreamcore.errors import ConfigError

from . import cpu_shim

DEPTH = 5000
"""Calls within calls that the compiler follows: each turn of a loop is one, and a denoiser beside a text encoder that
trains has more than its own thousand.  A stack of 8 MiB takes 10,000, as tried."""


def devices() -> list[str]:
    """Each device under the name that `--device` takes."""
    ascend = ms.device_context.ascend
    return ["cpu", *(f"ascend:{i}" for i in range(ascend.device_count() if ascend.is_available() else 0))]


def choose_device(settings: DeviceSettings) -> tuple[str, bool]:
    """Set MindSpore's device and execution mode; mindone may be imported after this, not before.

    Returns:
        "CPU" or "Ascend", and whether steps are compiled (graph mode).

    Raises:
        ConfigError: a device that is not there.
    """
    kind, index = _parse(settings.device)
    graph = settings.mode == "graph" if settings.mode is not None else kind == "Ascend"
    try:
        if index is None:
            ms.set_device(kind)
        else:
            ms.set_device(kind, index)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"device: {settings.device or kind.lower()!r} cannot be used by this MindSpore "
            f"({str(error).splitlines()[0]}); there is {', '.join(devices())}"
        ) from None
    ms.set_recursion_limit(DEPTH)
    ms.set_context(mode=ms.PYNATIVE_MODE)  # in graph mode the step alone is compiled, by ms.jit
    if cpu_shim.install():
        ms.runtime.launch_blocking()  # asynchronous launching makes steps several times slower on a CPU
    return kind, graph


def _parse(name: str | None) -> tuple[str, int | None]:
    """Device target and index of a name such as ascend:1; None is Ascend where there is one."""
    local = int(os.environ["DEVICE_ID"]) if "DEVICE_ID" in os.environ else None
    if name is None:
        return ("Ascend", local) if ms.device_context.ascend.is_available() else ("CPU", None)
    kind, _, index = name.lower().partition(":")
    if kind not in ("cpu", "ascend") or (index and (kind == "cpu" or not index.isdecimal())):
        raise ConfigError(f"device: {name!r} is none of MindSpore's; expected one of {', '.join(devices())}")
    if kind == "cpu":
        return "CPU", None
    return "Ascend", int(index) if index else local
