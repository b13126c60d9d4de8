"""Safetensors files larger than memory: read where they lie, and written one tensor at a time.

The reader maps the file and checks its header before it looks at anything else; numbers keep their type, bfloat16 among
them, which NumPy lacks, so that what is copied is copied exactly.  The writer asks for one tensor after the other.

Source: safetensors' format description and `safetensors/src/tensor.rs` (the order of types, the padding of the header).
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..io.files import file_in_place, mapped
from ..io.progress import progress
from .later import taking

TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "BF16": "<u2", "I32": "<i4",
    "U32": "<u4", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip
"""Safetensors' names of types -> NumPy's, in safetensors' order; bfloat16's bits lie in uint16."""
QUANTIZED = ("F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
"""Types of quantized weights."""
HEADER_LIMIT = 100_000_000
"""Bytes; safetensors' own limit for a header."""
_NAMES = {np.dtype(code): name for name, code in TYPES.items() if name != "BF16"}


class Entry(NamedTuple):
    """A tensor that is written, or made of others, when its turn comes.

    Args:
        dtype: safetensors' name of its type; BF16's data are uint16.
        data: its numbers, or what answers them when they are needed; an error of what answers ends the writing.
    """

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[Any] | Callable[[], NDArray[Any]]

    def read(self) -> NDArray[Any]:
        """Its numbers."""
        return self.data() if callable(self.data) else self.data

    def kept(self, *, copies: bool) -> Entry:
        """Its numbers as they are now, in memory of their own."""
        value = self.read()
        return Entry(self.dtype, self.shape, np.array(value, order="C") if copies else value)

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(TYPES[self.dtype]).itemsize

    @classmethod
    def of(cls, value: NDArray[Any]) -> Entry:
        """An array as an entry.

        Raises:
            ConfigError: safetensors has no such type.
        """
        try:
            return cls(_NAMES[value.dtype.newbyteorder("<")], value.shape, value)
        except KeyError:
            raise ConfigError(f"numbers of type {value.dtype} have no place in a safetensors file") from None


class Tensors(Mapping[str, NDArray[Any]]):
    """The tensors of a safetensors file by name, sorted: read-only views of the file, which stays open as long as one
    of them is there; they may be unaligned.

    Args:
        file: its path.

    Attributes:
        dtypes: by name, as safetensors calls them: BF16's view is of uint16.
        shapes: by name.
        metadata: what the file says of itself.

    Raises:
        ConfigError: naming the file: it cannot be read, is cut off, its header is too large or no header, or a tensor's
            type is not known, or its place lies outside the file, in another's, or leaves a gap.  Nothing but the
            header has been read then.
    """

    def __init__(self, file: Path):
        self.file = file
        self.dtypes: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, int] = {}
        try:
            self._bytes = mapped(file)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise ConfigError(f"{file}: cannot be read as safetensors: {error}") from None
        try:
            self.metadata = self._index()
        except _Damaged as error:
            raise ConfigError(f"{file}: cannot be read as safetensors: {error}") from None

    def __getitem__(self, name: str) -> NDArray[Any]:
        kind, shape = np.dtype(TYPES[self.dtypes[name]]), self.shapes[name]
        count = math.prod(shape)
        if count == 0:
            return np.empty(shape, kind)
        return np.frombuffer(self._bytes, kind, count, self._places[name]).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def give_back(self) -> None:
        """Let the system take back the pages that were read: they come again where they are needed.

        Where a system cannot be told (Windows), it does so by itself when memory is short.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._bytes.madvise(mmap.MADV_DONTNEED)

    def entry(self, name: str) -> Entry:
        """One tensor as an entry that reads the file when its turn comes."""
        return Entry(self.dtypes[name], self.shapes[name], lambda: self[name])

    def entries(self) -> dict[str, Entry]:
        """All of them."""
        return {name: self.entry(name) for name in self}

    def _index(self) -> dict[str, str]:
        whole = len(self._bytes)
        length = int.from_bytes(self._bytes[:8], "little")
        if whole < 8 or length > min(whole - 8, HEADER_LIMIT):
            raise _Damaged(
                f"its header says to have {length} bytes; the file has {whole}, and a header at most {HEADER_LIMIT}"
            )
        header = _parsed(self._bytes[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise _Damaged("its metadata are no texts")
        spans = {name: self._span(name, header[name]) for name in sorted(header)}
        at = 0
        for name, (start, end) in sorted(spans.items(), key=lambda item: (item[1], item[0])):
            if start != at:
                raise _Damaged(f"{name}: begins at {start}; expected {at}, where the tensor before it ends")
            at = end
        if at != whole - 8 - length:
            raise _Damaged(f"its tensors take {at} bytes, and {whole - 8 - length} are there: it is cut off, or longer")
        self._places = {name: 8 + length + start for name, (start, _) in spans.items()}
        return metadata

    def _span(self, name: str, said: Any) -> tuple[int, int]:
        """Where a tensor lies, after its entry of the header has been checked and noted."""
        if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
            raise _Damaged(f"{name}: expected dtype, shape and data_offsets; found {said!r:.80}")
        dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
        if dtype in QUANTIZED:
            raise ConfigError(
                f"{self.file}: {name}: numbers of type {dtype}: quantized weights, which are not read; give the file "
                "of the same model in fp16, bf16 or fp32"
            )
        if not isinstance(dtype, str) or dtype not in TYPES:
            raise _Damaged(f"{name}: numbers of type {dtype!r:.40}, which are not known; known are {', '.join(TYPES)}")
        if not (_whole_numbers(shape) and _whole_numbers(offsets) and len(offsets) == 2):
            raise _Damaged(f"{name}: no shape and offsets: {shape!r:.80}, {offsets!r:.80}")
        start, end = offsets
        if end - start != math.prod(shape) * np.dtype(TYPES[dtype]).itemsize:
            raise _Damaged(f"{name}: {dtype} {shape} does not take the bytes {start} to {end}")
        self.dtypes[name], self.shapes[name] = dtype, tuple(shape)
        return start, end


class _Damaged(Exception):
    """What is wrong with a file, in words."""


def _parsed(content: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _Damaged("its header names something twice")
        return found

    try:
        header = json.loads(content.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _Damaged(f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise _Damaged("its header is no JSON object")
    return header


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def as_float(entry: Entry) -> NDArray[Any]:
    """An entry's numbers as NumPy computes with them: bfloat16 as float32."""
    value = entry.read()
    # a shift by a plain 16 makes an int64 of a scalar in NumPy 1
    return (value.astype(np.uint32) << np.uint32(16)).view(np.float32) if entry.dtype == "BF16" else value


def in_order(entries: Mapping[str, Entry]) -> list[str]:
    """The names of entries as a file has them: larger types first, then by the alphabet."""
    return sorted(entries, key=lambda name: (-list(TYPES).index(entries[name].dtype), name))


def write_tensors(file: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, tensor by tensor; it takes its name when it is complete and on the disk.

    Equal entries and metadata make equal bytes on every machine; they are those that `safetensors` writes, whose order
    of metadata changes from run to run.  Where files are taken (`later.py`), it is written later.

    Raises:
        ValueError: an entry's data are not of its type and shape.
        OSError: the disk's complaint.
    """
    later, size = taking(), sum(entry.size for entry in entries.values())
    if later is not None and later.has_room(size):
        kept = {name: entry.kept(copies=later.copies) for name, entry in entries.items()}
        later.add(file, size, partial(_write, file, kept, metadata))
    else:
        _write(file, entries, metadata)


def _write(file: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None, digest: Any = None) -> None:
    order = in_order(entries)
    header: dict[str, Any] = {"__metadata__": dict(sorted({"format": "pt", **(metadata or {})}.items()))}
    at = 0
    for name in order:
        entry = entries[name]
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [at, at + entry.size]}
        at += entry.size
    content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    content += b" " * (-len(content) % 8)
    whole = 8 + len(content) + at
    with file_in_place(file) as opened, progress(f"writing {file.name}", whole, "bytes") as step:
        head = memoryview(len(content).to_bytes(8, "little") + content)
        for part in chain([head], (_bytes_of(name, entries[name]) for name in order)):
            opened.write(part)
            if digest is not None:
                digest.update(part)
            step(part.nbytes)


def _bytes_of(name: str, entry: Entry) -> memoryview:
    value = entry.read()
    kind = np.dtype(TYPES[entry.dtype])
    if value.dtype.newbyteorder("<") != kind or value.shape != entry.shape:
        raise ValueError(f"{name}: {value.dtype} {value.shape}, where {entry.dtype} {entry.shape} was announced")
    return np.ascontiguousarray(value, kind).reshape(-1).view(np.uint8).data
