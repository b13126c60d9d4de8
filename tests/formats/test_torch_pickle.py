"""PyTorch's pickles read without PyTorch: hostile, lying and damaged ones are refused, and nothing in them is run.

`tests/torch/test_torch_pickle.py` reads what PyTorch itself has written.
"""

from __future__ import annotations

import io
import os
import pickle  # noqa: TID251  (to make what attacks)
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.torch_bin import write_bin
from dreamcore.formats.torch_pickle import MAGIC, VERSION, read_torch_pickle

from ..support.odd_arrays import odd_arrays

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n)R"


class Calls:
    """A pickle of it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


def whole(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def tensor(
    shape: tuple[int, ...] = (2,), strides: tuple[int, ...] = (1,), offset: int = 0, length: int = 2, key: str = "0"
) -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + whole(length) + b"tQ"
    return TENSOR + b"(" + storage + whole(offset) + numbers(*shape) + numbers(*strides) + b"\x89" + ORDERED + b"tR"


def state(*items: tuple[str, bytes]) -> bytes:
    """A pickled dictionary of values in opcodes."""
    return b"\x80\x02}" + b"".join(text(name) + value + b"s" for name, value in items) + b"."


def archive(file: Path, content: bytes, storage: bytes = bytes(8), **how: Any) -> Path:
    with zipfile.ZipFile(file, "w", **how) as opened:
        opened.writestr("archive/data.pkl", content)
        opened.writestr("archive/data/0", storage)
        opened.writestr("archive/byteorder", "little")
    return file


def legacy(file: Path, content: bytes, keys: Any = ("0",), length: int = 2, storage: bytes = bytes(8)) -> Path:
    machine = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (MAGIC, VERSION, machine)]
    parts += [content, pickle.dumps(list(keys), 2), struct.pack("<q", length), storage]
    file.write_bytes(b"".join(parts))
    return file


def refused(file: Path, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_torch_pickle(file)
    assert str(caught.value).startswith(f"{file}: ") and len(str(caught.value)) < 600


def test_what_is_written_is_read(tmp_path: Path) -> None:
    wanted = odd_arrays()
    write_bin(tmp_path / "a.bin", wanted)
    found = read_torch_pickle(tmp_path / "a.bin")
    assert list(found) == sorted(wanted) and found.left_out == ()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype.newbyteorder("<"), array.shape), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        np.testing.assert_array_equal(found.entry(name).read(), array)


def test_only_with_leave(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.ckpt: holds pickled weights; --allow_pickle reads them"):
        read_torch_pickle(tmp_path / "a.ckpt", allow_pickle=False)


@pytest.mark.parametrize("form", [archive, legacy])
def test_both_forms(form: Callable[..., Path], tmp_path: Path) -> None:
    storage = np.array([1, 2, 3, 4, 5, 6], np.float32).tobytes()
    inner = state(("a", tensor((2, 2), (1, 2), 1, 6)), ("b", tensor((3,), (2,), 0, 6)), ("step", whole(7)))[2:-1]
    content = b"\x80\x02}" + text("state_dict") + inner + b"s" + text("epoch") + whole(3) + b"s."
    more = {"length": 6} if form is legacy else {}
    found = read_torch_pickle(form(tmp_path / "a.ckpt", content, storage=storage, **more))
    assert found.left_out == ("epoch", "step")
    np.testing.assert_array_equal(found["a"], [[2, 4], [3, 5]])
    np.testing.assert_array_equal(found["b"], [1, 3, 5])
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0, 0] = 1


def test_notes_of_training_are_left_out_and_never_built(tmp_path: Path) -> None:
    """Lightning keeps its callbacks' classes as keys, and NumPy's scalars, beside the weights."""
    notes = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n" + whole(1) + b"s"
    score = (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n("
        + text("f8")
        + whole(0)
        + whole(1)
        + b"tR"
        + text("x")
        + b"tR"
    )
    content = state(("state_dict", state(("a", tensor()))[2:-1]), ("callbacks", b"}" + notes), ("score", score))
    found = read_torch_pickle(archive(tmp_path / "a.ckpt", content))
    assert (list(found), found.left_out) == (["a"], ("callbacks", "score"))
    refused(
        archive(tmp_path / "b.ckpt", state(("a", tensor()), ("score", score))),
        "score: holds numpy.core.multiarray.scalar",
    )


MARKED: list[str] = []


def mark(*words: Any) -> None:
    MARKED.append("run")


def nested(depth: int = 60) -> bytes:
    """A tuple of a tuple twice, and so on: small, and endless to whoever looks into it."""
    return b")" + b"q\x00h\x00\x86" * depth


HOSTILE = {
    "a command": (pickle.dumps({"a": Calls(os.system, "touch run")}, 2), "holds (posix|nt).system, which weights do"),
    "evaluated text": (pickle.dumps({"a": Calls(eval, "mark()")}, 2), r"holds __builtin__\.eval"),
    "a function of ours": (pickle.dumps({"a": Calls(mark)}, 2), r"test_torch_pickle\.mark"),
    "in protocol 4": (pickle.dumps({"a": Calls(mark)}, 4), r"test_torch_pickle\.mark"),
    "in protocol 0": (pickle.dumps({"a": Calls(mark)}, 0), r"test_torch_pickle\.mark"),
    "an attribute": (state(("a", b"cbuiltins\ngetattr\n(cos\nsystem\n" + text("x") + b"tR")), r"builtins\.getattr"),
    "by way of a name": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"os\.system"),
    "an object made": (b"\x80\x02cos\nsystem\n)\x81.", r"os\.system"),
    "an instance": (b"(ios\nsystem\n.", "INST|damaged"),
    "beside the weights": (state(("state_dict", state(("a", tensor()))[2:-1]), ("x", b"cos\nsystem\n")), r"os\.system"),
    "in an ordered dictionary": (state(("a", b"ccollections\nOrderedDict\n((cos\nsystem\nttR")), r"os\.system"),
    "a tensor's own type": (state(("a", b"ctorch._tensor\n_rebuild_from_type_v2\n(tR")), "_rebuild_from_type_v2"),
    "what a tensor calls": (state(("a", TENSOR + b"(" + ORDERED * 6 + b"tR")), "a tensor that PyTorch did not write"),
    "NumPy with odd arguments": (
        state(("a", b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + numbers(10**12) + text("O") + b"tR")),
        r"a: holds numpy\.core\.multiarray\._reconstruct",
    ),
    "a call of what was made": (state(("a", ORDERED + b")R")), "calls what is no name"),
    "reduced again and again": (state(("a", b"cnumpy\ndtype\n" + b")R" * 3)), "calls what is no name"),
    "attributes of a tensor": (state(("a", tensor() + b"}b")), "sets attributes"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "a key that is endless": (b"\x80\x02}" + nested() + b"Ns.", "holds a tuple as a key"),
    "a name that is endless": (b"\x80\x04" + nested() + nested() + b"\x93.", "a name that is no text"),
    "a storage that is endless": (state(("a", nested() + b"Q")), "names a storage as PyTorch does not"),
    "a type that is endless": (
        state(("a", b"(" + text("storage") + nested() + text("0") + text("cpu") + whole(1) + b"tQ")),
        "holds numbers of no type",
    ),
    "no dictionary": (b"\x80\x02" + tensor() + b".", "holds a tensor; expected weights by name"),
    "nothing": (state(), "holds no tensors"),
    "a claim of memory": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.", "damaged"),
    "a place far out": (b"\x80\x02Nr\xff\xff\xff\xff.", "holds a nonetype"),
    "more than fits": (state(("a", tensor((3,)))), r"a: its shape \(3,\) reaches beyond its storage of 2 F32"),
    "a step too far": (state(("a", tensor((2,), (2,)))), "reaches beyond"),
    "an offset too far": (state(("a", tensor(offset=1))), "reaches beyond"),
    "a shape from nothing": (state(("a", tensor((10**9, 10**9), (0, 0)))), "reaches beyond"),
    "a negative step": (state(("a", tensor((2,), (-1,)))), "a tensor that PyTorch did not write"),
    "a negative offset": (state(("a", tensor(offset=-4))), "a tensor that PyTorch did not write"),
    "too many axes": (state(("a", tensor((1,) * 70, (1,) * 70))), "a tensor that PyTorch did not write"),
    "a storage that lies": (state(("a", tensor(length=2**40))), "its storage has 8 bytes, not 1099511627776 F32"),
    "a storage of elsewhere": (state(("a", tensor(key="../1"))), r"its storage \.\./1 is not there"),
    "no end": (state(("a", tensor()))[:-1], "damaged"),
    "half of it": (state(("a", tensor()))[:40], "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, words = HOSTILE[kind]
    monkeypatch.chdir(tmp_path)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("Python's unpickler was asked")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    refused(archive(tmp_path / "a.ckpt", content), words)
    refused(legacy(tmp_path / "b.ckpt", content), f"{words}|its storages are not those")
    assert not MARKED and not (tmp_path / "run").exists()


def test_an_archive_that_lies_is_refused(tmp_path: Path) -> None:
    good = state(("a", tensor()))
    refused(archive(tmp_path / "bomb.ckpt", good, bytes(1 << 20), compression=zipfile.ZIP_DEFLATED), "is compressed")
    whole_file = archive(tmp_path / "good.ckpt", good).read_bytes()
    assert list(read_torch_pickle(tmp_path / "good.ckpt")) == ["a"]
    for end in (10, len(whole_file) // 2, len(whole_file) - 1):
        (tmp_path / "cut.ckpt").write_bytes(whole_file[:end])
        refused(tmp_path / "cut.ckpt", "damaged|is an archive, but not")
    for old, new, words in (
        (struct.pack("<II", 8, 8), struct.pack("<II", 1 << 30, 1 << 30), "lies outside the file"),
        (struct.pack("<II", 8, 8), struct.pack("<II", 8, 1 << 30), "is compressed"),
        (b"byteorder", b"byteorde\0", None),
    ):
        at = whole_file.rindex(old)
        (tmp_path / "lies.ckpt").write_bytes(whole_file[:at] + new + whole_file[at + len(old) :])
        if words is not None:
            refused(tmp_path / "lies.ckpt", words)
    changed = bytearray(whole_file)
    changed[whole_file.index(b"storage")] ^= 1
    (tmp_path / "changed.ckpt").write_bytes(bytes(changed))
    refused(tmp_path / "changed.ckpt", "another checksum")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "good.ckpt", "a") as opened:
        opened.writestr("archive/data/0", bytes(8))
    refused(tmp_path / "good.ckpt", "not of one model's weights")
    (tmp_path / "other.ckpt").write_bytes(io.BytesIO(b"PK\x05\x06" + bytes(18)).getvalue())
    refused(tmp_path / "other.ckpt", "not of one model's weights")


def test_the_older_form_that_lies_is_refused(tmp_path: Path) -> None:
    good = state(("a", tensor()))
    for name, how, words in (
        ("length", {"length": 1 << 61}, "it is cut off"),
        ("negative", {"length": -1}, "it is cut off"),
        ("short", {"storage": bytes(4)}, "it is cut off"),
        ("other", {"length": 1}, "its storage has 4 bytes, not 2 F32"),
        ("keys", {"keys": ["1"]}, "its storages are not those that it names"),
        ("twice", {"keys": ["0", ("0",)]}, "its storages are not those that it names"),
    ):
        refused(legacy(tmp_path / f"{name}.ckpt", good, **how), words)
    for name, content in (("empty", b""), ("text", b"no weights at all"), ("number", pickle.dumps(3, 2))):
        (tmp_path / f"{name}.ckpt").write_bytes(content)
        refused(tmp_path / f"{name}.ckpt", "damaged, or no weights of PyTorch's")
