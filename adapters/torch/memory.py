"""Which of PyTorch's exceptions mean that memory is used up."""

from __future__ import annotations

import re

import torch

from dreamcore.backends.out_of_memory import Kind

DEVICE = re.compile(r"out of memory|_STATUS_ALLOC_FAILED", re.I)
HOST = re.compile(r"DefaultCPUAllocator|can't allocate memory|unable to mmap", re.I)


def out_of_memory(error: BaseException) -> Kind | None:
    """Whose; libraries below torch and its allocator on the CPU raise plain RuntimeErrors."""
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    if not isinstance(error, RuntimeError):
        return None
    return "device" if DEVICE.search(str(error)) else "host" if HOST.search(str(error)) else None
