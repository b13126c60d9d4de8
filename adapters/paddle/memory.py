"""Which of Paddle's exceptions mean that memory is used up."""

from __future__ import annotations

import re

from dreamcore.backends.out_of_memory import Kind

OURS = re.compile(r"ResourceExhausted|out of memory|Cannot allocate|ALLOC_FAILED", re.I)
DEVICE = re.compile(r"\b(GPU|CUDA|CUBLAS|CUDNN|NCCL)", re.I)


def out_of_memory(error: BaseException) -> Kind | None:
    """Whose: ResourceExhausted is a MemoryError in Python, and CUDA's own errors are OSErrors."""
    said = str(error)
    if not isinstance(error, MemoryError | OSError | RuntimeError | SystemError) or not OURS.search(said):
        return None
    return "device" if DEVICE.search(said) else "host"
