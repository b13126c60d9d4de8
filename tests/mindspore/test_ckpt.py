"""Our checkpoints are MindSpore's: what one side saves, the other loads, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats import mindspore_ckpt
from dreamcore.formats.mindspore_ckpt import read_ckpt, write_ckpt

from ..support import needs

pytestmark = needs.mindspore

ARRAYS = {
    f"of.{np.dtype(kind).name}": np.arange(6).reshape(2, 3).astype(kind)
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "?")
}


def tensors() -> list[dict[str, Any]]:
    import mindspore as ms

    return [{"name": name, "data": ms.Tensor(value)} for name, value in ARRAYS.items()]


@pytest.mark.parametrize("crc_check", [False, True])
def test_what_mindspore_saves_is_read(crc_check: bool, tmp_path: Path) -> None:
    import mindspore as ms

    more = {"epoch_num": 3, "loss_scale": 1.5, "done": True, "who": "häh", "empty": ""}
    short = {"name": "short", "data": ms.Tensor(np.array([1.5, -2], np.float32)).astype(ms.bfloat16)}
    file = tmp_path / "a.ckpt"
    ms.save_checkpoint([*tensors(), short], str(file), append_dict=more, crc_check=crc_check)
    found = read_ckpt(file)
    for name, value in ARRAYS.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value), name
    assert {name: found[name].item() for name in more} == more
    assert found["epoch_num"].shape == ()
    assert found["short"].dtype == np.float32 and found["short"].tolist() == [1.5, -2]
    assert list(found) == [*ARRAYS, "short", *more]


def test_mindspore_loads_what_is_written(tmp_path: Path) -> None:
    import mindspore as ms

    file = tmp_path / "a.ckpt"
    write_ckpt(file, {**ARRAYS, "lora_rank": np.array(4), "who": np.array("häh")})
    loaded = ms.load_checkpoint(str(file))
    for name, value in ARRAYS.items():
        assert loaded[name].asnumpy().dtype == value.dtype and np.array_equal(loaded[name].asnumpy(), value), name
    assert int(loaded["lora_rank"].value()) == 4 and loaded["lora_rank"].shape == ()
    assert loaded["who"] == "häh"


def test_bytes_are_the_same(tmp_path: Path) -> None:
    import mindspore as ms

    ms.save_checkpoint(tensors(), str(tmp_path / "theirs.ckpt"), append_dict={"lora_rank": 4, "who": "häh"})
    write_ckpt(tmp_path / "ours.ckpt", {**ARRAYS, "lora_rank": np.array(4), "who": np.array("häh")})
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()


def test_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both cut large arrays at the same size; here it is a small one."""
    import mindspore as ms
    from mindspore.train import serialization

    assert mindspore_ckpt.SLICE == serialization.SLICE_SIZE * 1024
    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)
    monkeypatch.setattr(mindspore_ckpt, "SLICE", 1024)
    value = np.arange(1000, dtype=np.float32).reshape(10, 100)
    ms.save_checkpoint([{"name": "a", "data": ms.Tensor(value)}], str(tmp_path / "theirs.ckpt"))
    write_ckpt(tmp_path / "ours.ckpt", {"a": value})
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()
    assert np.array_equal(read_ckpt(tmp_path / "theirs.ckpt")["a"], value)
    assert np.array_equal(ms.load_checkpoint(str(tmp_path / "ours.ckpt"))["a"].asnumpy(), value)


def test_encrypted_files_are_refused(tmp_path: Path) -> None:
    import mindspore as ms

    ms.save_checkpoint(tensors(), str(tmp_path / "a.ckpt"), enc_key=b"0123456789abcdef")
    with pytest.raises(ConfigError, match="a.ckpt: is encrypted"):
        read_ckpt(tmp_path / "a.ckpt")
