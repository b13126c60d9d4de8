"""The precision of the arithmetic: the types that a device has."""

from __future__ import annotations

from typing import Any

import mindspore as ms

from dreamcore.errors import LackingError

DTYPES = {"no": ms.float32, "fp16": ms.float16, "bf16": ms.bfloat16}


def check_precision(name: str, device: str) -> Any:
    """The arithmetic's type.

    Raises:
        LackingError: the device lacks it.
    """
    if name != "no" and device == "CPU":
        raise LackingError(f"mixed_precision: {name} needs an Ascend device; a CPU computes in float32 here (no)")
    return DTYPES[name]
