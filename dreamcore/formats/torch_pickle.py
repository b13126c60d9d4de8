"""PyTorch's pickles (`.ckpt`, `.bin`, `.pt`, `.pth`), read without PyTorch and without running anything.

Two forms.  A zip archive (PyTorch 1.6 and later) of `data.pkl`, which says what stretch of which storage each tensor
is, and of each storage as it lies in memory, never compressed.  And, before that, five pickles one after the other
(a magic number, a version, what the machine was like, the content, the storages' keys) and then each storage, its
length in eight bytes before it.  Tensors are views of the mapped file; what a file says of lengths, offsets and strides
is compared with what is there before anything is made of it.

Sources: `torch/serialization.py` (`_save`, `_legacy_save`), `torch/_utils.py` (`_rebuild_tensor_v2` and `_v3`).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..errors import ConfigError
from ..io.files import mapped
from .inert_pickle import LIMIT, Inert, Name, Refused, Window, load
from .tensors import TYPES, Entry

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
"""What the older form begins with."""
STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
"""PyTorch's names of storages, and safetensors' of their types."""
UNTYPED = Name("torch.storage", "UntypedStorage")
LATER_TYPES = {"uint16": "U16", "uint32": "U32", "uint64": "U64"}
"""Types without a storage of their own."""


class Storage(NamedTuple):
    """A stretch of numbers, as a persistent id names it."""

    key: str
    dtype: str
    length: int
    """In numbers of that type; bytes where it has none (U8)."""


class Tensor(NamedTuple):
    """What stretch of a storage a tensor is: counted in numbers of its type."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchPickle(Mapping[str, NDArray[Any]]):
    """The tensors of a file by name, sorted: read-only views, which may be unaligned.  Of a training checkpoint those
    of its `state_dict`.

    Attributes:
        dtypes: by name, as safetensors calls them: BF16's view is of uint16.
        shapes: by name.
        left_out: what it holds besides, by name: no tensors.

    Raises:
        ConfigError: naming the file: it cannot be read, is damaged, or asks for anything but tensors.
    """

    def __init__(self, file: Path):
        self.file = file
        try:
            self._bytes = mapped(file)
            content = self._zipped() if self._bytes[:2] == b"PK" else self._legacy()
            self._tensors, self.left_out = _by_name(content)
            for name, tensor in self._tensors.items():
                self._check(name, tensor)
        except Refused as error:
            raise ConfigError(f"{file}: {error}") from None
        except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{file}: damaged, or no weights of PyTorch's ({reason:.300})") from None
        self.dtypes = {name: tensor.dtype for name, tensor in self._tensors.items()}
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        tensor = self._tensors[name]
        kind, count = np.dtype(TYPES[tensor.dtype]), math.prod(tensor.shape)
        if count == 0:
            return np.empty(tensor.shape, kind)
        first = self._places[tensor.storage.key][0] + tensor.offset * kind.itemsize
        if tensor.strides == _strides(tensor.shape):
            return np.frombuffer(self._bytes, kind, count, first).reshape(tensor.shape)
        values = np.frombuffer(self._bytes, kind, _reach(tensor), first)
        steps = [step * kind.itemsize for step in tensor.strides]
        return as_strided(values, tensor.shape, steps, writeable=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def entry(self, name: str) -> Entry:
        """One tensor as `tensors.Tensors` gives it."""
        return Entry(self.dtypes[name], self.shapes[name], lambda: self[name])

    def entries(self) -> dict[str, Entry]:
        """All of them."""
        return {name: self.entry(name) for name in self}

    def _check(self, name: str, tensor: Tensor) -> None:
        if tensor.storage.key not in self._places:
            raise Refused(f"{name}: its storage {tensor.storage.key:.80} is not there")
        start, end = self._places[tensor.storage.key]
        size, storage = np.dtype(TYPES[tensor.dtype]).itemsize, tensor.storage
        if end - start != storage.length * np.dtype(TYPES[storage.dtype]).itemsize:
            raise Refused(f"{name}: its storage has {end - start} bytes, not {storage.length} {storage.dtype}")
        room = (end - start) // size
        if math.prod(tensor.shape) > room or (0 not in tensor.shape and tensor.offset + _reach(tensor) > room):
            raise Refused(f"{name}: its shape {tensor.shape} reaches beyond its storage of {room} {tensor.dtype}")

    def _zipped(self) -> Any:
        with zipfile.ZipFile(self.file) as archive:
            entries = archive.infolist()
        inside = {entry.filename.partition("/")[2]: entry for entry in entries}
        if "data.pkl" not in inside or len(inside) != len(entries):
            raise Refused("is an archive, but not of one model's weights as PyTorch writes them")
        if "byteorder" in inside and self._content(inside["byteorder"]) != b"little":
            raise Refused("was written by a big-endian machine")
        data = {name.removeprefix("data/"): entry for name, entry in inside.items() if name.startswith("data/")}
        self._places = {key: self._span(entry) for key, entry in data.items()}
        pickled = inside["data.pkl"]
        if zlib.crc32(self._content(pickled)) != pickled.CRC:
            raise ValueError("data.pkl has another checksum")
        return self._load(Window(self._bytes, *self._span(pickled)), _storage)

    def _span(self, entry: zipfile.ZipInfo) -> tuple[int, int]:
        """Where the bytes of an archive's entry lie."""
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise Refused(f"{entry.filename}: is compressed, which PyTorch never does")
        at = entry.header_offset
        header = self._bytes[at : at + 30]
        start = at + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if header[:4] != b"PK\x03\x04" or start + entry.file_size > len(self._bytes):
            raise ValueError(f"{entry.filename} lies outside the file")
        return start, start + entry.file_size

    def _content(self, entry: zipfile.ZipInfo) -> bytes:
        start, end = self._span(entry)
        if end - start > LIMIT:
            raise Refused(f"{entry.filename}: is too large, with {end - start} bytes")
        return self._bytes[start:end]

    def _legacy(self) -> Any:
        at, whole = 0, len(self._bytes)
        storages: dict[str, Storage] = {}

        def noted(pid: Any) -> Storage:
            storage = _storage(pid)
            if storages.setdefault(storage.key, storage) != storage:
                raise Refused(f"storage {storage.key}: is named as two different ones")
            return storage

        found = []
        for persistent in (_none, _none, _none, noted, _none):
            window = Window(self._bytes, at, whole)
            found.append(self._load(window, persistent))
            at = window.at
            if found[:2] != [MAGIC, VERSION][: len(found[:2])]:
                raise ValueError("it does not begin as PyTorch's files do")
        *_, machine, content, keys = found
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise Refused("was written by a big-endian machine")
        self._places = {}
        if not isinstance(keys, list) or {type(key) for key in keys} - {str} or set(keys) != storages.keys():
            raise ValueError("its storages are not those that it names")
        for key in keys:
            size = np.dtype(TYPES[storages[key].dtype]).itemsize
            length = int.from_bytes(self._bytes[at : at + 8], "little")
            start, at = at + 8, at + 8 + length * size
            if at > whole:
                raise ValueError("it is cut off")
            self._places[key] = start, at
        return content

    def _load(self, window: Window, persistent: Callable[[Any], Storage]) -> Any:
        return load(window, _ADMITTED, persistent)


def read_torch_pickle(file: Path, *, allow_pickle: bool = True) -> TorchPickle:
    """The tensors of a file that `torch.save` wrote; as `TorchPickle`.

    Raises:
        ConfigError: also without `allow_pickle`, which it names.
    """
    if not allow_pickle:
        raise ConfigError(f"{file}: holds pickled weights; --allow_pickle reads them: tensors alone, and runs nothing")
    return TorchPickle(file)


def _by_name(content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors by name, and the names of what is none."""
    beside: list[str] = []
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        beside = [str(name) for name in content if name != "state_dict"]
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise Refused(f"holds a {type(content).__name__.lower()}; expected weights by name")
    for name, value in content.items():
        if isinstance(value, Inert):
            raise Refused(f"{name!s:.80}: holds {value.name:.80}; only arrays are read from such files")
    found = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not found:
        raise Refused("holds no tensors by name")
    left_out = sorted([*beside, *(str(name) for name in content if name not in found)])
    return dict(sorted(found.items())), tuple(left_out)


def _storage(pid: Any) -> Storage:
    """The storage that a persistent id names: ("storage", class, key, device, length), and None in the older form."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
        raise Refused("names a storage as PyTorch does not")
    _, kind, key, _, length = pid[:5]
    dtype = "U8" if kind == UNTYPED else STORAGES.get(kind.name) if isinstance(kind, Name) else None
    if dtype is None:
        raise Refused(f"holds numbers of {_said(kind)}, which are not read")
    if not isinstance(key, str) or not _whole(length):
        raise Refused("names a storage as PyTorch does not")
    return Storage(key, dtype, length)


def _none(pid: Any) -> Storage:
    raise Refused("names a storage where there is none")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    return _placed(storage, storage.dtype if isinstance(storage, Storage) else "", offset, shape, strides)


def _later_tensor(storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, kind: Any, *___: Any) -> Tensor:
    name = kind.name if isinstance(kind, Name) else ""
    if name not in LATER_TYPES:
        raise Refused(f"holds numbers of {_said(kind)}, which are not read; give the weights in fp16, bf16 or fp32")
    return _placed(storage, LATER_TYPES[name], offset, shape, strides)


def _placed(storage: Any, dtype: str, offset: Any, shape: Any, strides: Any) -> Tensor:
    sizes = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= 32
    if not isinstance(storage, Storage) or not sizes or not all(map(_whole, (offset, *shape, *strides))):
        raise Refused("holds a tensor that PyTorch did not write")
    usual = _strides(shape)
    steps = tuple(u if side == 1 else s for side, s, u in zip(shape, strides, usual, strict=True))
    return Tensor(storage, dtype, offset, shape, steps)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor if isinstance(tensor, Tensor) else Inert("torch.nn.Parameter")


def _ordered(*items: Any) -> Any:
    return {} if not items else Inert("collections.OrderedDict")


FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
_TYPES = ("float32", "float16", "bfloat16", "float64", "int64", *LATER_TYPES, *FLOAT8)
_ADMITTED: dict[Name, Callable[..., Any] | None] = {
    **{Name("torch", name): None for name in (*STORAGES, *_TYPES, "device", "Size")},
    UNTYPED: None,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v3"): _later_tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("collections", "OrderedDict"): _ordered,
}


def _said(kind: Any) -> str:
    """A name for a message; another value may be too large to write."""
    return str(kind)[:80] if isinstance(kind, Name) else "no type"


def _whole(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array whose numbers lie one after the other, the last axis fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _reach(tensor: Tensor) -> int:
    """Numbers from a tensor's first to its last, both counted."""
    return 1 + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.strides, strict=True))
