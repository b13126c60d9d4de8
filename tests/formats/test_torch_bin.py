"""PyTorch's pickles of arrays, written without PyTorch, and read here by an unpickler that knows no PyTorch either.

`tests/torch/test_torch_bin.py` reads them with PyTorch itself.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251  (to read what is written as PyTorch's pickles)
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamcore.formats.torch_bin import write_bin

from ..support.odd_arrays import odd_arrays

KINDS = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "DoubleStorage": "<f8",
}


class Storage(NamedTuple):
    """A persistent id, as PyTorch's pickles have them."""

    storage: str
    kind: Any
    key: str
    place: str
    size: int


class Reader(pickle.Unpickler):
    """Reads tensors as arrays, and refuses every name but the three that such a pickle needs."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        assert module == "torch" and name in KINDS, (module, name)
        return KINDS[name]

    def persistent_load(self, pid: Any) -> Storage:
        return Storage(*pid)

    def rebuild(self, storage: Storage, offset: int, size: Any, stride: Any, grad: bool, hooks: Any) -> NDArray[Any]:
        assert (offset, grad, hooks, storage.place) == (0, False, OrderedDict(), "cpu")
        numbers = np.frombuffer(self.archive.read(f"{self.root}/data/{storage.key}"), storage.kind)
        assert len(numbers) == storage.size
        steps = [step * numbers.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(numbers, size, steps)


def test_what_it_says(tmp_path: Path) -> None:
    wanted = odd_arrays()
    write_bin(tmp_path / "a.bin", wanted)
    with zipfile.ZipFile(tmp_path / "a.bin") as archive:
        assert archive.testzip() is None
        root = archive.namelist()[0].partition("/")[0]
        assert archive.read(f"{root}/byteorder") == b"little" and archive.read(f"{root}/version") == b"3\n"
        found = Reader(archive, root).load()
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype.newbyteorder("<")), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's hash says what it holds, and not when it was written."""
    write_bin(tmp_path / "a.bin", odd_arrays())
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    write_bin(tmp_path / "b.bin", odd_arrays())
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    write_bin(tmp_path / "c.bin", odd_arrays(seed=1))
    assert (tmp_path / "a.bin").read_bytes() != (tmp_path / "c.bin").read_bytes()
