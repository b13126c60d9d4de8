"""What a run may take: the device's memory, where its driver tells it without a framework, and the host's."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from ..backends.installed import launched_processes

NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
"""NVIDIA's management library: it opens no context on a card, as asking CUDA would."""
CGROUP = Path("/sys/fs/cgroup")
ASCEND = Path("/dev/davinci0")


@dataclass(frozen=True)
class Machine:
    """Where a run computes, and what memory there is now.

    Args:
        device: cpu, cuda:0, gpu:0, ascend.
        free: bytes of the device's memory that nobody has; None where that is not known.
        total: bytes of it.
        host_free: bytes that this process may still take, swap included; None where that is not known.
        processes: of the run, each with a device of its own.
        name: the maker's, of a card.
    """

    device: str
    free: int | None = None
    total: int | None = None
    host_free: int | None = None
    processes: int = 1
    name: str | None = None

    @property
    def on_host(self) -> bool:
        """Whether networks are computed in the host's memory."""
        return self.device == "cpu"


def find_machine(backend: str, device: str | None) -> Machine:
    """As the backend will choose it.

    Args:
        device: the setting.
    """
    host = _share(host_free())
    name = (device or _usual(backend)).lower()
    kind, _, number = name.partition(":")
    if kind not in ("cuda", "gpu"):
        return Machine("cpu" if kind == "cpu" else name, host_free=host, processes=launched_processes(backend))
    local = os.environ.get("LOCAL_RANK") or os.environ.get("PADDLE_LOCAL_RANK") or "0"
    index = int(number or local) if (number or local).isdecimal() else 0
    free, total, maker = _card(index) or (None, None, None)
    return Machine(f"{kind}:{index}", free, total, host, launched_processes(backend), maker)


def _share(free: int | None) -> int | None:
    """What each process of a run may take, of which several are on this machine."""
    counts = [os.environ.get(name) or "1" for name in ("LOCAL_WORLD_SIZE", "PADDLE_TRAINERS_NUM", "MS_WORKER_NUM")]
    return None if free is None else free // max(int(count) for count in counts if count.isdecimal())


def _usual(backend: str) -> str:
    """The device that a backend takes where none is given."""
    if backend == "mindspore":
        return "ascend" if ASCEND.exists() else "cpu"
    built_for_cpu = False
    with suppress(PackageNotFoundError):
        if backend == "torch":
            built_for_cpu = version("torch").endswith("+cpu")
        else:
            version("paddlepaddle")  # the other build is called paddlepaddle-gpu
            built_for_cpu = True
    if built_for_cpu or _card(0) is None:
        return "cpu"
    return "cuda" if backend == "torch" else "gpu"


def _card(index: int) -> tuple[int, int, str] | None:
    """Free and total bytes and the name of a card as frameworks number them; None where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else None
    if visible is not None and (names is None or index >= len(names)):
        return None
    wanted = (names[index] if names else str(index)).strip()

    class Memory(ctypes.Structure):
        _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))

    with suppress(OSError, AttributeError):
        nvml = ctypes.CDLL(NVML)
        if nvml.nvmlInit_v2() != 0:
            return None
        try:
            handle, memory = ctypes.c_void_p(), Memory()
            if wanted.isdecimal():
                found = nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(wanted)), ctypes.byref(handle))
            else:
                found = nvml.nvmlDeviceGetHandleByUUID(wanted.encode(), ctypes.byref(handle))
            if found == 0 and nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
                name = ctypes.create_string_buffer(96)
                nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name)))
                return int(memory.free), int(memory.total), name.value.decode(errors="replace")
        finally:
            nvml.nvmlShutdown()
    return None


def host_free() -> int | None:
    """Bytes of memory and swap that this process may still take: what the system has, or its control group allows."""
    try:
        free = int(psutil.virtual_memory().available + psutil.swap_memory().free)
    except (OSError, RuntimeError, psutil.Error):
        return None
    allowed = [left for left in (_group_left("memory.max", "memory.current"), _first_version()) if left is not None]
    return min([free, *allowed])


def _first_version() -> int | None:
    return _group_left("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")


def _group_left(limit: str, used: str) -> int | None:
    """Bytes that a control group may still take; the cache of files, which gives way, counts as free."""
    try:
        most = (CGROUP / limit).read_text().strip()
        taken = int((CGROUP / used).read_text())
        lines = (CGROUP / Path(used).with_name("memory.stat")).read_text().splitlines()
    except (OSError, ValueError):
        return None
    if not most.isdecimal() or int(most) >= 2**60:
        return None
    cached = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return max(0, int(most) - taken + cached)
