"""Safetensors files read where they lie, written one tensor at a time: as `safetensors` does, and nothing hostile."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.errors import ConfigError
from dreamcore.formats.renaming import cast
from dreamcore.formats.tensors import HEADER_LIMIT, Entry, Tensors, as_float, write_tensors
from dreamcore.formats.weights import Arrays

ARRAYS: Arrays = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "é": np.arange(3, dtype=np.float16),
    "a": np.arange(3),
    "none": np.zeros((0, 3), np.float32),
    "one": np.array(3.0, np.float64),
    "flag": np.array([True, False]),
}


def entries(arrays: Arrays = ARRAYS) -> dict[str, Entry]:
    return {name: Entry.of(value) for name, value in arrays.items()}


def test_it_writes_the_bytes_that_safetensors_writes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ours.safetensors", entries())
    save_file(ARRAYS, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    turned = {name: Entry(*entries()[name][:2], lambda name=name: ARRAYS[name]) for name in reversed(ARRAYS)}
    write_tensors(tmp_path / "again.safetensors", turned)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()


def test_it_reads_what_safetensors_writes(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(ARRAYS, file, metadata={"format": "pt", "what": "a model"})
    found = Tensors(file)
    assert list(found) == sorted(ARRAYS)
    assert all(
        found[name].dtype == value.dtype and np.array_equal(found[name], value) for name, value in ARRAYS.items()
    )
    assert (found.dtypes["é"], found.shapes["b"]) == ("F16", (2, 3))
    assert found.metadata == {"format": "pt", "what": "a model"}
    assert not found["b"].flags.writeable and not found["b"].flags.owndata


def test_bfloat16_is_kept_as_it_is(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0x7FC1, 0xFF80, 0x0001], np.uint16)
    write_tensors(tmp_path / "a.safetensors", {"x": Entry("BF16", (4,), bits)})
    found = Tensors(tmp_path / "a.safetensors")
    assert found.dtypes == {"x": "BF16"} and np.array_equal(found["x"], bits)
    assert as_float(found.entry("x"))[0] == 1.0
    write_tensors(tmp_path / "b.safetensors", found.entries())
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_numbers_are_rounded_to_the_nearest() -> None:
    """Worked by hand: bfloat16 has seven digits after the point, of 1.0 the next are 1.0078125 and 1.015625."""
    halves = np.array([1.00390625, 1.01171875, 1.004, -1.00390625, 3.4e38, np.inf, np.nan], np.float32)
    found = as_float(cast(Entry.of(halves), "BF16"))
    assert found[:6].tolist() == [1.0, 1.015625, 1.0078125, -1.0, np.inf, np.inf] and np.isnan(found[6])
    assert cast(Entry.of(np.float32([65504, 1e6])), "F16").read().tolist() == [65504.0, np.inf]
    assert cast(Entry.of(np.arange(3)), "F16").dtype == "I64", "position numbers"


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    size = 1 << 20
    tracemalloc.start()
    large = {f"x{n}": Entry("F32", (size,), lambda n=n: np.full(size, n, np.float32)) for n in range(16)}
    write_tensors(tmp_path / "a.safetensors", large)
    write_tensors(tmp_path / "b.safetensors", Tensors(tmp_path / "a.safetensors").entries())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 4 * size, "of sixteen"
    assert load_file(tmp_path / "b.safetensors")["x7"][5] == 7


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"before")
    with pytest.raises(ValueError, match=r"x: float32 \(2,\), where F32 \(3,\) was announced"):
        write_tensors(file, {"x": Entry("F32", (3,), lambda: np.zeros(2, np.float32))})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"] and file.read_bytes() == b"before"


def with_header(header: Any, data: bytes = bytes(8)) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + data


def tensor(start: int = 0, end: int = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, end]}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "short": (b"\x01\x00", "header"),
    "cut off": (with_header({"x": tensor()}, bytes(7)), "take 8 bytes, and 7 are there: it is cut off"),
    "longer": (with_header({"x": tensor()}, bytes(9)), "take 8 bytes, and 9 are there"),
    "header beyond the file": (with_header({"x": tensor()})[:20], "its header says to have"),
    "huge header": ((1 << 63).to_bytes(8, "little") + bytes(64), f"a header at most {HEADER_LIMIT}"),
    "no JSON": (with_header(b"{" * 100_000), "its header is no JSON"),
    "no UTF-8": (with_header(b'{"\xff": 1}'), "its header is no JSON"),
    "a list": (with_header([1]), "no JSON object"),
    "twice": (with_header(b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":1}'), "something twice"),
    "overlap": (with_header({"x": tensor(), "y": tensor(4, 12)}, bytes(12)), "y: begins at 4; expected 8"),
    "one in two": (with_header({"x": tensor(), "y": tensor()}), "y: begins at 0; expected 8"),
    "gap": (with_header({"x": tensor(), "y": tensor(12, 20)}, bytes(20)), "y: begins at 12; expected 8"),
    "beyond": (with_header({"x": tensor(8, 16)}), "x: begins at 8; expected 0"),
    "shape lies": (with_header({"x": tensor(shape=(3,))}), r"x: F32 \[3\] does not take the bytes 0 to 8"),
    "overflow": (with_header({"x": tensor(shape=(1 << 62, 1 << 62))}), "does not take the bytes"),
    "negative": (with_header({"x": tensor(-8, 0)}), "no shape and offsets"),
    "fraction": (with_header({"x": tensor(shape=[2.0])}), "no shape and offsets"),
    "a text for a shape": (with_header({"x": tensor(shape="2")}), "no shape and offsets"),
    "unknown type": (with_header({"x": tensor(dtype="F128")}), "numbers of type 'F128', which are not known"),
    "a list for a type": (with_header({"x": tensor(dtype=["F32"])}), "which are not known"),
    "quantized": (with_header({"x": tensor(shape=(8,), dtype="F8_E4M3")}), "F8_E4M3: quantized weights"),
    "more fields": (with_header({"x": tensor() | {"more": 1}}), "x: expected dtype, shape and data_offsets"),
    "metadata": (with_header({"__metadata__": {"a": 1}, "x": tensor()}), "its metadata are no texts"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_by_name(what: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[what]
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=f"bad.safetensors: .*{reason}"):
        Tensors(tmp_path / "bad.safetensors")


def test_headers_that_are_damaged_anywhere(tmp_path: Path) -> None:
    """Whatever a byte is turned into, it is a file or a refusal, and never another exception."""
    file = tmp_path / "bad.safetensors"
    write_tensors(file, entries())
    content, draw = bytearray(file.read_bytes()), np.random.default_rng(0)
    length = 8 + int.from_bytes(content[:8], "little")
    opened = 0
    for position in [*range(8), *draw.integers(8, length, 200)]:
        changed = bytearray(content)
        changed[position] = int(draw.integers(256))
        file.write_bytes(changed)
        opened += _opens(lambda: Tensors(file))
    assert opened < 208


def _opens(open_: Callable[[], Tensors]) -> bool:
    try:
        found = open_()
    except ConfigError:
        return False
    return all(value is not None for value in found.values())
