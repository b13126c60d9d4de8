"""MindSpore's checkpoints against bytes worked by hand; whatever is damaged is refused by name."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats import mindspore_ckpt
from dreamcore.formats.mindspore_ckpt import Checkpoint, read_ckpt, write_ckpt

# Checkpoint.value (field 1, bytes) of 0x1C bytes: tag "a" | tensor of 0x17 bytes: dims 2, 1 | "Float32" | 8 bytes
PAIR = bytes.fromhex("0a1c 0a0161 1217 0802 0801 1207") + b"Float32" + bytes.fromhex("1a08 0000803f 00000040")
# tag "n" | tensor of 0x11 bytes: no dims | "Int64" | 8 bytes: 3
NUMBER = bytes.fromhex("0a16 0a016e 1211 1205") + b"Int64" + bytes.fromhex("1a08 0300000000000000")
# tag "s" | dims 0 | "str" | two letters of UTF-32
TEXT = bytes.fromhex("0a16 0a0173 1211 0800 1203") + b"str" + bytes.fromhex("1a08 68000000 e4000000")
# tag "b" | dims 2 | "BFloat16" | 1 and -2
SHORT = bytes.fromhex("0a17 0a0162 1212 0802 1208") + b"BFloat16" + bytes.fromhex("1a04 803f 00c0")

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2], np.float16),
    "flag": np.array(True),
    "bytes": np.arange(300, dtype=np.uint8).reshape(3, 100),
    "none": np.zeros((0, 4), np.float32),
    "rank": np.array(4),
    "word": np.array("dämon"),
}


def written(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "x.ckpt"
    file.write_bytes(content)
    return file


def test_bytes_worked_by_hand(tmp_path: Path) -> None:
    arrays = read_ckpt(written(tmp_path, PAIR + NUMBER + TEXT + SHORT))
    assert list(arrays) == ["a", "n", "s", "b"]
    assert arrays["a"].dtype == np.float32 and arrays["a"].tolist() == [[1], [2]]
    assert arrays["n"].shape == () and arrays["n"] == 3
    assert arrays["s"].item() == "hä"
    assert arrays["b"].dtype == np.float32 and arrays["b"].tolist() == [1, -2]
    assert all(array.flags.aligned and array.flags.writeable for array in arrays.values())


def test_what_is_written_are_those_bytes(tmp_path: Path) -> None:
    arrays = {"a": np.array([[1], [2]], np.float32), "n": np.array(3), "s": np.array("hä")}
    write_ckpt(tmp_path / "x.ckpt", arrays)
    assert (tmp_path / "x.ckpt").read_bytes() == PAIR + NUMBER + TEXT
    assert [file.name for file in tmp_path.iterdir()] == ["x.ckpt"]


def test_there_and_back(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "x.ckpt", ARRAYS)
    again = read_ckpt(tmp_path / "x.ckpt")
    assert list(again) == list(ARRAYS)
    for name, value in ARRAYS.items():
        assert again[name].dtype == value.dtype and again[name].shape == value.shape
        assert np.array_equal(again[name], value)


def test_large_arrays_lie_in_several_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore_ckpt, "SLICE", 128)
    write_ckpt(tmp_path / "x.ckpt", ARRAYS)
    assert (tmp_path / "x.ckpt").read_bytes().count(b"UInt8") == 3
    assert np.array_equal(read_ckpt(tmp_path / "x.ckpt")["bytes"], ARRAYS["bytes"])


def test_arrays_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "x.ckpt", ARRAYS)
    opened = Checkpoint(tmp_path / "x.ckpt")
    assert len(opened) == len(ARRAYS) and "weight" in opened and "other" not in opened
    assert not opened["weight"].flags.writeable, "a view of the file"


def test_a_number_of_old_files(tmp_path: Path) -> None:
    """MindSpore 1 wrote dims [0] for a number alone."""
    old = bytes.fromhex("0a18 0a016e 1213 0800 1205") + b"Int64" + bytes.fromhex("1a08 0300000000000000")
    assert read_ckpt(written(tmp_path, old))["n"].shape == ()


def test_fields_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    assert list(read_ckpt(written(tmp_path, PAIR + bytes.fromhex("12026869 2a00 1801 3d00000000")))) == ["a"]


def test_checksum(tmp_path: Path) -> None:
    tail = b"crc_num" + zlib.crc32(PAIR).to_bytes(10, "big")
    assert read_ckpt(written(tmp_path, PAIR + tail))["a"].tolist() == [[1], [2]]
    with pytest.raises(ConfigError, match="x.ckpt: .*checksum"):
        read_ckpt(written(tmp_path, PAIR[:-1] + b"\x41" + tail))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (bytes.fromhex("d85e3a7f") + PAIR, "encrypted"),
        (PAIR.replace(b"Float32", b"Float99"), "Float99"),
        (PAIR + PAIR, "a: more values"),
        (PAIR + NUMBER + PAIR, "a: more values"),
        (PAIR.replace(bytes.fromhex("0802"), bytes.fromhex("0803")), "a: 8 bytes of Float32"),
        (PAIR.replace(bytes.fromhex("0802"), bytes.fromhex("0801")), "a: 8 bytes of Float32"),
        (bytes.fromhex("0affffffffff7f") + PAIR, "bytes follow"),
        (bytes.fromhex("0affffffffffffffffffff7f") + PAIR, "ten bytes"),
        (bytes.fromhex("0a05 0a0161 1a00"), "a: is no array"),
        (b"PK\x03\x04 and more", "is a checkpoint of PyTorch's"),
        (b"\x80\x02 an old pickle of PyTorch's", "damaged, or no checkpoint of MindSpore's"),
        (bytes.fromhex("12026869"), "holds no arrays"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="x.ckpt") as caught:
        read_ckpt(written(tmp_path, content))
    assert reason in str(caught.value)


def test_a_huge_shape_takes_no_memory(tmp_path: Path) -> None:
    side = b"\x08" + b"\xff" * 8 + b"\x7f"
    for dims in (side, side + side, b"\x08\x00" + side + side, b"\x08" + b"\xff" * 9 + b"\x01", b"\x08\x01" * 40):
        tensor = dims + bytes.fromhex("1207") + b"Float32" + bytes.fromhex("1a00")
        value = bytes.fromhex("0a0161 12") + bytes([len(tensor)]) + tensor
        with pytest.raises(ConfigError, match="x.ckpt"):
            read_ckpt(written(tmp_path, b"\x0a" + bytes([len(value)]) + value))


def test_no_damage_raises_anything_else(tmp_path: Path) -> None:
    whole = PAIR + NUMBER + TEXT + SHORT
    damaged = [whole[:end] for end in range(len(whole))]
    for place in range(len(whole)):
        damaged += [whole[:place] + bytes([byte]) + whole[place + 1 :] for byte in (0, 1, 0x7F, 0x80, 0xFF)]
    refused = 0
    for content in damaged:
        try:
            read_ckpt(written(tmp_path, content))
        except ConfigError as error:
            assert "x.ckpt" in str(error)
            refused += 1
    assert refused > len(damaged) / 2


def test_numbers_that_mindspore_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a: numbers of type complex64"):
        write_ckpt(tmp_path / "x.ckpt", {"a": np.zeros(2, np.complex64)})
    assert list(tmp_path.iterdir()) == []
