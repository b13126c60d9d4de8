"""Paddle's weight files (`model_state.pdparams`), read and written without Paddle, one array at a time, and without
trusting them.

Such a file is a pickle, and a pickle may call any function.  This one is taken apart without Python's unpickler: four
names are known, those that a pickled NumPy array is built from, and answered here; whatever else a file asks for is
refused by name.  Arrays are views of the mapped file.

Source: what NumPy's `ndarray.__reduce__` and `dtype.__reduce__` answer; opcodes of `Lib/pickletools.py`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..io.files import mapped
from .inert_pickle import Built, Name, Refused, Window, load

NAMES = "StructuredToParameterName@@"
"""Key of Paddle's own entry: its internal names of the weights."""
_CODES = {"f2", "f4", "f8", "u2", "u1", "i1", "i2", "i4", "i8", "b1"}
_VERSION = 1
"""Of an array's state."""


def read_pdparams(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name, read-only; bfloat16, which Paddle stores as uint16, becomes float32.

    Raises:
        ConfigError: the file is damaged, or holds anything but named arrays of numbers.
    """
    try:
        raw = mapped(file)
        content = load(Window(raw, 0, len(raw)), _ADMITTED, _persistent)
        if not isinstance(content, dict):
            raise Refused(f"holds a {type(content).__name__.lower()}; expected weights by name")
        content.pop(NAMES, None)
        return {name: _plain(name, value) for name, value in content.items()}
    except Refused as error:
        raise ConfigError(f"{file}: {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{file}: damaged, or no weights of Paddle's ({reason:.300})") from None


class _Type(Built):
    """A NumPy type of numbers."""

    def __init__(self, code: Any = None, *_: Any):
        if code not in _CODES:
            raise Refused(f"holds an array of type {str(code)[:20] if isinstance(code, str) else 'none'}")
        self.code = code

    @property
    def numbers(self) -> np.dtype[Any]:
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "<"
        if order not in ("<", ">", "|", "="):
            raise Refused("holds an array that NumPy did not write")
        numbers: np.dtype[Any] = np.dtype(self.code).newbyteorder(order)
        return numbers


class _Array(Built):
    """An array, once its state is there."""

    def __init__(self, kind: Any = None, shape: Any = None, *_: Any):
        if kind != _NDARRAY or shape != (0,):
            raise Refused("holds an array that NumPy did not write")

    def value(self) -> NDArray[Any]:
        """The numbers, as they lie in the file."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise Refused("holds an array that NumPy did not write")
        _, shape, kind, by_columns, content = self.state
        sizes = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or not isinstance(kind, _Type) or not isinstance(content, bytes | memoryview | bytearray):
            raise Refused("holds an array that NumPy did not write")
        numbers = kind.numbers
        if math.prod(shape) * numbers.itemsize != len(content):
            raise Refused(f"holds an array of shape {shape} with {len(content)} bytes")
        flat = np.frombuffer(content, numbers) if len(content) else np.empty(0, numbers)
        return flat.reshape(shape, order="F" if by_columns else "C")


def _latin1(text: Any = None, encoding: Any = None) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise Refused("holds text in another encoding than latin1")
    return text.encode("latin1")


def _persistent(_: Any) -> None:
    raise Refused("names a storage, as PyTorch's files do")


_NDARRAY = Name("numpy", "ndarray")
_ADMITTED: dict[Name, Callable[..., Any] | None] = {
    Name("numpy.core.multiarray", "_reconstruct"): _Array,
    Name("numpy._core.multiarray", "_reconstruct"): _Array,
    _NDARRAY: None,
    Name("numpy", "dtype"): _Type,
    Name("_codecs", "encode"): _latin1,
}


def _plain(name: Any, value: Any) -> NDArray[Any]:
    if not isinstance(name, str) or not isinstance(value, _Array):
        raise Refused(f"{name if isinstance(name, str) else type(name).__name__!s:.80}: is no array of numbers")
    found = value.value()
    return (found.astype(np.uint32) << 16).view(np.float32) if found.dtype == np.uint16 else found


def write_pdparams(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as `paddle.load` reads them, each asked for when its turn comes."""
    with file.open("wb") as opened:
        opened.write(b"\x80\x04}")
        for name in arrays:
            for piece in (_text(name), *_pickled(arrays[name]), b"s"):
                opened.write(piece)
        opened.write(_text(NAMES) + b"}" + b"".join(_text(name) * 2 + b"s" for name in arrays) + b"s.")


def _pickled(value: NDArray[Any]) -> Iterator[bytes | memoryview]:
    """An array as NumPy pickles it, in opcodes of protocol 4."""
    array = np.ascontiguousarray(value).reshape(value.shape)
    kind = array.dtype.str[1:]
    yield b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K" + bytes([_VERSION])
    yield _tuple(array.shape) + b"cnumpy\ndtype\n" + _text(kind) + b"\x89\x88\x87R(K\x03" + _text(array.dtype.str[0])
    yield b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89\x8e" + struct.pack("<Q", array.nbytes)
    yield array.reshape(-1).view(np.uint8).data
    yield b"tb"


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _tuple(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", number) for number in numbers) + b"t"
