"""Which of MindSpore's exceptions mean that memory is used up."""

from __future__ import annotations

import re

import mindspore as ms

from dreamcore.backends.out_of_memory import Kind

WORDS = re.compile(
    r"out of memory|memory (is not|isn't|not) enough|\bm?alloc\w*[^\n]*\bfail|\bfail\w*[^\n]*\bm?alloc|EL0004", re.I
)


def out_of_memory(error: BaseException) -> Kind | None:
    """Whose: the device's wherever there is one, for all its RuntimeErrors are worded alike."""
    if not isinstance(error, RuntimeError) or not WORDS.search(str(error)):
        return None
    return "host" if ms.get_context("device_target") == "CPU" else "device"
