"""Paddle's weight files (`model_state.pdparams`), read and written without Paddle and without trusting them.

Such a file is a pickle, and a pickle may call any function.  This reader knows four names, those that a pickled NumPy
array is built from, and puts functions of its own in their places; whatever else a file asks for is refused by name.
"""

from __future__ import annotations

import pickle  # noqa: TID251  # the one place: the file format is Paddle's, and the reader admits arrays only
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

NAMES = "StructuredToParameterName@@"
"""Key of Paddle's own entry: its internal names of the weights."""


def read_pdparams(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name; bfloat16, which Paddle stores as uint16, becomes float32.

    Raises:
        ConfigError: the file is damaged, or holds anything but named arrays of numbers.
    """
    try:
        with file.open("rb") as opened:
            content = _ArraysOnly(opened).load()
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{file}: damaged, or no weights of Paddle's ({reason})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: holds a {type(content).__name__}; expected weights by name")
    content.pop(NAMES, None)
    return {name: _plain(file, name, value) for name, value in content.items()}


def write_pdparams(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as `paddle.load` reads them."""
    with file.open("wb") as opened:
        pickle.dump({**arrays, NAMES: {name: name for name in arrays}}, opened, protocol=4)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        raise ConfigError(f"holds {module}.{name}, which weights do not need; only arrays are read from such files")


def _empty_array(kind: Any, shape: Any, code: Any) -> NDArray[Any]:
    """NumPy's `_reconstruct`: an array that its pickled state then fills."""
    if kind is not _ARRAY or shape != (0,):
        raise ConfigError("holds an array that NumPy did not write")
    return np.empty(0, np.int8)


def _number_type(code: Any, *_: Any) -> np.dtype[Any]:
    if code not in {"f2", "f4", "f8", "u2", "u1", "i1", "i2", "i4", "i8", "b1"}:
        raise ConfigError(f"holds an array of type {code!r}; expected numbers")
    numbers: np.dtype[Any] = np.dtype(code)
    return numbers


def _latin1(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1":
        raise ConfigError(f"holds text in {encoding!r}")
    return str(text).encode("latin1")


_ARRAY = object()
"""Stands for `numpy.ndarray`: it can be named, and not called."""
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _number_type,
    ("_codecs", "encode"): _latin1,
}


def _plain(file: Path, name: Any, value: Any) -> NDArray[Any]:
    if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ConfigError(f"{file}: {name!r} is no array of numbers")
    if value.dtype == np.uint16:
        return (value.astype(np.uint32) << 16).view(np.float32)
    return value
