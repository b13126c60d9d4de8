"""A file's numbers in a smaller type."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError
from .renaming import cast
from .tensors import Entry, Tensors, as_float, write_tensors

DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
"""A precision as settings have it -> safetensors' name."""


def round_weights(file: Path, precision: str) -> None:
    """Write a safetensors file anew, one tensor at a time, with its floating-point numbers in `precision`.

    Raises:
        RunError: a number that has no place there; the file is as it was.
    """
    tensors = Tensors(file)
    entries = {name: _rounded(file, name, tensors.entry(name), precision) for name in tensors}
    new = file.with_name(f"{file.stem}.{precision}{file.suffix}")
    write_tensors(new, entries, tensors.metadata)
    del entries, tensors  # which hold the file open
    os.replace(new, file)


def _rounded(file: Path, name: str, entry: Entry, precision: str) -> Entry:
    rounded = cast(entry, DTYPES[precision])
    if rounded is entry:
        return entry

    def read() -> NDArray[Any]:
        value = rounded.read()
        if not np.isfinite(as_float(Entry(rounded.dtype, rounded.shape, value))).all():
            problem = f"a number that is none, or has no place in {precision}"
            raise RunError(f"{file}: {name}: {problem}; give save_precision fp32, or bf16")
        return value

    return Entry(rounded.dtype, rounded.shape, read)
