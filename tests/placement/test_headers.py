"""What a model's files hold is told by their headers: nothing else is there to be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dreamcore.errors import ConfigError
from dreamcore.placement.headers import stored_weights


def write_header(file: Path, entries: dict[str, Any], size: int = 0) -> Path:
    """A safetensors file's header; `size` bytes of zeros after it, which take no disk."""
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + size)
    return file


def entry(dtype: str, *shape: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}


@pytest.mark.parametrize("size", [0, 100 * 2**30])
def test_only_headers_are_read(tmp_path: Path, size: int) -> None:
    """100 GiB, in a sparse file, or cut off behind the header."""
    file = write_header(tmp_path / "model.safetensors", {"a.weight": entry("BF16", 2**15, 5 * 2**18)}, size)
    found = stored_weights([file])
    assert (found.count, found.bytes_each, found.basis) == (5 * 2**33, 2, "counted")


def test_shards_ties_and_numbers_of_positions(tmp_path: Path) -> None:
    one = write_header(
        tmp_path / "model-00001-of-00002.safetensors",
        {"shared.weight": entry("F16", 10, 4), "encoder.embed_tokens.weight": entry("F16", 10, 4)},
    )
    other = write_header(
        tmp_path / "model-00002-of-00002.safetensors",
        {"final.weight": entry("F32", 4), "embeddings.position_ids": entry("I64", 1, 77)},
    )
    found = stored_weights([one, other])
    assert found.shapes == {"shared.weight": (10, 4), "final.weight": (4,)}
    assert (found.count, found.bytes_each) == (44, 2)


def test_as_the_library_writes_it(tmp_path: Path) -> None:
    arrays = {"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.float32)}
    save_file(arrays, tmp_path / "model.safetensors")
    found = stored_weights([tmp_path / "model.safetensors"])
    assert found.shapes == {"a": (3, 4), "b": (5,)}
    assert found.file_bytes == (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("name", "count"), [("pytorch_model.bin", 25), ("pytorch_model.fp16.bin", 50), ("model_state.pdparams", 25)]
)
def test_other_forms_are_judged_by_their_size(tmp_path: Path, name: str, count: int) -> None:
    (tmp_path / name).write_bytes(bytes(100))
    found = stored_weights([tmp_path / name])
    assert (found.count, found.basis, found.shapes) == (count, "by file size", {})


@pytest.mark.parametrize(
    "content",
    [b"", b"\x05\0\0\0", (2**40).to_bytes(8, "little") + b"{}", b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}'],
)
def test_a_damaged_header_is_named(tmp_path: Path, content: bytes) -> None:
    (file := tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors: cannot be read as safetensors"):
        stored_weights([file])
