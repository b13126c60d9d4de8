"""MindSpore's `.ckpt` files, read and written without MindSpore: arrays by name in protocol buffers.

A file is a message `Checkpoint { repeated Value value = 1; }` of `Value { string tag = 1; TensorProto tensor = 2; }`
and `TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }` (mindspore's
checkpoint.proto; the encoding: protobuf.dev/programming-guides/encoding).  `save_checkpoint` cuts large contents into
several values of the same tag, writes a text as UTF-32 of dims [0], and ends a file, if asked, with a checksum.
Nothing in a file is trusted: lengths are compared with what is there before anything is made of them.
"""

from __future__ import annotations

import math
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..io.files import mapped
from ..io.system import fsync
from .protobuf import Damaged, message_fields, read_varint

SLICE = 512 << 20
"""Bytes of a content in one value; MindSpore's own limit."""
CHECKSUM = b"crc_num"
"""Begins the 17 bytes that may end a file: CRC-32 of all before them, in 10 bytes, the greatest first."""
ENCRYPTED = bytes.fromhex("d85e3a7f")
"""How a file begins that was saved with `enc_key`."""
ZIP = b"PK\x03\x04"
"""How PyTorch's files of the same ending begin."""
TEXT, BFLOAT16 = "str", "BFloat16"
TYPES = {
    "Int8": "<i1", "UInt8": "<u1", "Int16": "<i2", "UInt16": "<u2", "Int32": "<i4", "UInt32": "<u4", "Int64": "<i8",
    "UInt64": "<u8", "Float16": "<f2", "Float32": "<f4", "Float64": "<f8", "Bool": "?", BFLOAT16: "<u2",
}  # fmt: skip
"""MindSpore's names of types -> NumPy's; those that NumPy lacks are refused."""
_NAMES = {np.dtype(code): name for name, code in TYPES.items() if name != BFLOAT16}
Span = tuple[int, int]
"""Where something begins and ends in the file."""


@dataclass
class _Entry:
    """One name's array: its shape and type, and where its content lies."""

    kind: str
    shape: tuple[int, ...]
    spans: list[Span] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(end - start for start, end in self.spans)


class Checkpoint(Mapping[str, NDArray[Any]]):
    """The arrays of a file by name, in its order; each is read when it is asked for.

    Arrays are read-only views of the file where it holds them in one piece, and may then be unaligned; `read_ckpt`
    copies.  bfloat16 becomes float32, a text an array of no dimensions.

    Args:
        path: the file.

    Raises:
        ConfigError: naming the file: cannot be read, is damaged or encrypted, or holds what is no array of numbers.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._bytes = mapped(path)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise ConfigError(f"{path}: cannot be read as MindSpore's checkpoint: {error}") from None
        try:
            self._entries = self._index()
        except Damaged as error:
            raise ConfigError(f"{path}: damaged, or no checkpoint of MindSpore's: {error}") from None

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        pieces = [np.frombuffer(self._bytes, np.uint8, end - start, start) for start, end in entry.spans]
        content = pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
        if entry.kind == TEXT:
            return np.array(_decoded(content.tobytes(), "utf-32-le"))
        values = content.view(TYPES[entry.kind]).reshape(entry.shape)
        return (values.astype(np.uint32) << 16).view(np.float32) if entry.kind == BFLOAT16 else values

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _index(self) -> dict[str, _Entry]:
        if self._bytes[:4] == ENCRYPTED:
            raise ConfigError(f"{self.path}: is encrypted; save it without enc_key")
        if self._bytes[:4] == ZIP:
            raise ConfigError(f"{self.path}: is a checkpoint of PyTorch's (pickled); expected one of MindSpore's")
        entries: dict[str, _Entry] = {}
        last = None
        for number, start, end in message_fields(self._bytes, 0, self._checked_end()):
            if number != 1:
                continue
            name, entry = self._value(start, end)
            if name == last and entries[name].size < _size_of(entries[name]):
                self._extend(name, entries[name], entry)
            elif name in entries:
                raise Damaged(f"{name}: more values than its shape {entries[name].shape} has room for")
            else:
                entries[name] = entry
            last = name
        if not entries:
            raise Damaged("it holds no arrays")
        for name, entry in entries.items():
            self._check(name, entry)
        return entries

    def _checked_end(self) -> int:
        """Where the values end; what may follow is their checksum, which has to be theirs."""
        end = len(self._bytes) - len(CHECKSUM) - 10
        if end < 0 or self._bytes[end : end + len(CHECKSUM)] != CHECKSUM:
            return len(self._bytes)
        found = 0
        for start in range(0, end, 1 << 24):
            found = zlib.crc32(self._bytes[start : min(start + (1 << 24), end)], found)
        if found != int.from_bytes(self._bytes[end + len(CHECKSUM) :], "big"):
            raise Damaged("its content does not match its checksum")
        return end

    def _value(self, start: int, end: int) -> tuple[str, _Entry]:
        fields = {number: (a, b) for number, a, b in message_fields(self._bytes, start, end)}
        if 1 not in fields:
            raise Damaged("a value has no name")
        name = _decoded(self._bytes[slice(*fields[1])], "utf-8")
        if 2 not in fields:
            raise ConfigError(f"{self.path}: {name}: is no array (a map, it may be); only arrays are read")
        return name, self._tensor(name, *fields[2])

    def _tensor(self, name: str, start: int, end: int) -> _Entry:
        shape: list[int] = []
        kind, content = "", None
        for number, a, b in message_fields(self._bytes, start, end):
            if number == 1:
                shape += _varints(self._bytes, a, b)
            elif number == 2:
                kind = _decoded(self._bytes[a:b], "utf-8")
            elif number == 3:
                content = (a, b)
        if kind != TEXT and kind not in TYPES:
            known = ", ".join([*TYPES, TEXT])
            raise ConfigError(f"{self.path}: {name}: holds numbers of type {kind!r:.40}; expected one of {known}")
        if content is None:
            raise Damaged(f"{name}: has no content")
        if len(shape) > 32 or math.prod(side or 1 for side in shape) >= 1 << 60:  # a negative side is 2**64 less it
            raise Damaged(f"{name}: no array has the shape {shape!r:.80}")
        if shape == [0] and content[1] > content[0]:  # so a number alone was written once, and texts still are
            shape = []
        return _Entry(kind, tuple(shape), [content] if content[1] > content[0] else [])

    def _extend(self, name: str, entry: _Entry, more: _Entry) -> None:
        if (more.kind, more.shape) != (entry.kind, entry.shape):
            raise Damaged(f"{name}: its values differ in type or shape")
        entry.spans += more.spans

    def _check(self, name: str, entry: _Entry) -> None:
        if entry.kind == TEXT:
            _decoded(b"".join(self._bytes[a:b] for a, b in entry.spans), "utf-32-le")
        elif entry.size != _size_of(entry):
            raise Damaged(f"{name}: {entry.size} bytes of {entry.kind} where {entry.shape} needs {_size_of(entry)}")


def read_ckpt(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file by name, each a copy of its own.

    Raises:
        ConfigError: as `Checkpoint`.
    """
    return {name: np.require(value, requirements=["A", "W"]) for name, value in Checkpoint(path).items()}


def write_ckpt(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as `mindspore.load_checkpoint` reads them, one after the other; the same ones give the same bytes.

    The file is there whole or not at all.  Texts are arrays of type str and no dimensions.

    Raises:
        ConfigError: numbers of a type that MindSpore has not.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            for name, value in arrays.items():
                _write_value(file, name, np.asarray(value))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    fsync(path.parent)


def _write_value(file: BinaryIO, name: str, value: NDArray[Any]) -> None:
    if value.dtype.kind == "U" and value.ndim == 0:
        kind, shape, value = TEXT, (0,), value.astype(value.dtype.newbyteorder("<"))
    elif (numbers := value.dtype.newbyteorder("<")) in _NAMES:
        kind, shape, value = _NAMES[numbers], value.shape, np.asarray(value, numbers, order="C")
    else:
        raise ConfigError(f"{name}: numbers of type {value.dtype} cannot be written to MindSpore's checkpoints")
    content = value.reshape(-1).view(np.uint8)
    told = b"".join(b"\x08" + _varint(side) for side in shape) + b"\x12" + _sized(kind.encode())
    for start in range(0, max(content.size, 1), SLICE):
        piece = content[start : start + SLICE]
        tensor = told + b"\x1a" + _varint(piece.size)
        head = b"\x0a" + _sized(name.encode()) + b"\x12" + _varint(len(tensor) + piece.size) + tensor
        file.write(b"\x0a" + _varint(len(head) + piece.size) + head)
        file.write(piece.data)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _sized(text: bytes) -> bytes:
    return _varint(len(text)) + text


def _size_of(entry: _Entry) -> int:
    """Bytes that a shape needs; a text takes what there is."""
    return entry.size if entry.kind == TEXT else math.prod(entry.shape) * np.dtype(TYPES[entry.kind]).itemsize


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding).rstrip("\0")
    except UnicodeDecodeError as error:
        raise Damaged(f"a text cannot be read: {error}") from None


def _varints(content: mmap.mmap, at: int, end: int) -> list[int]:
    found = []
    while at < end:
        number, at = read_varint(content, at, end)
        found.append(number)
    return found
