"""`.bin` files as `torch.save` writes them, of arrays alone and without PyTorch: for tools that look for that name.

A zip archive of `data.pkl`, a pickle that says which stretch of which storage each tensor is, and of each storage as it
lies in memory.  Sources: `torch/serialization.py` (`_save`), `torch/_utils.py` (`_rebuild_tensor_v2`).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "float64": "DoubleStorage"}
ROOT = "archive"
PROTO, EMPTY_DICT, STOP, MARK, TUPLE, EMPTY_TUPLE = b"\x80\x02", b"}", b".", b"(", b"t", b")"
BINPERSID, NEWFALSE, REDUCE, SETITEM, BINUNICODE, LONG1 = b"Q", b"\x89", b"R", b"s", b"X", b"\x8a"
"""Opcodes of pickle, protocol 2."""


def write_bin(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a state dict that `torch.load(file, weights_only=True)` reads; equal bytes every time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, f"{ROOT}/data.pkl", _pickled(arrays))
        _add(archive, f"{ROOT}/byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _add(archive, f"{ROOT}/data/{key}", np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).data)
        _add(archive, f"{ROOT}/version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
        entry.write(content)


def _pickled(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """{name: _rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())} in opcodes of protocol 2."""
    parts = [PROTO, EMPTY_DICT]
    for key, (name, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in np.empty(array.shape, array.dtype).strides]
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", MARK, MARK, _text("storage")]
        parts += [b"ctorch\n" + STORAGES[array.dtype.name].encode() + b"\n", _text(str(key)), _text("cpu")]
        parts += [_whole(array.size), TUPLE, BINPERSID, _whole(0), _tuple(array.shape), _tuple(strides)]
        parts += [NEWFALSE, b"ccollections\nOrderedDict\n", EMPTY_TUPLE, REDUCE, TUPLE]
        parts += [REDUCE, SETITEM]
    return b"".join([*parts, STOP])


def _text(text: str) -> bytes:
    encoded = text.encode()
    return BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _whole(number: int) -> bytes:
    return LONG1 + b"\x08" + struct.pack("<q", number)


def _tuple(numbers: Sequence[int]) -> bytes:
    return MARK + b"".join(map(_whole, numbers)) + TUPLE
