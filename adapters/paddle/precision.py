"""The precision of the arithmetic: the types that a device has, autocasting."""

from __future__ import annotations

from typing import Any

import paddle

from dreamcore.errors import LackingError

DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}


def check_precision(name: str, device: str) -> str:
    """The arithmetic's type.

    Raises:
        LackingError: the device lacks it.
    """
    if name != "no" and device == "cpu":
        raise LackingError(f"mixed_precision: {name} needs a GPU: Paddle has no mixed precision on a CPU; use no")
    if name == "bf16" and not paddle.amp.is_bfloat16_supported():
        raise LackingError(f"mixed_precision: {paddle.device.cuda.get_device_name(device)} lacks bf16; use fp16 or no")
    return DTYPES[name]


def autocast(dtype: str, level: str = "O1", *, enable: bool = True) -> Any:
    """A context in which products and convolutions are computed in `dtype`."""
    half = "bfloat16" if dtype == "float32" else dtype  # Paddle asks for a name even where nothing is cast
    return paddle.amp.auto_cast(enable=enable and dtype != "float32", dtype=half, level=level)
