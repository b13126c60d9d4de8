"""What `torch.save` writes, in both of its forms, read without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.torch_pickle import read_torch_pickle

torch = pytest.importorskip("torch")


def tensors() -> dict[str, Any]:
    shared = torch.randn(5)
    kinds = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16")
    found = {kind: torch.arange(6).reshape(2, 3).to(getattr(torch, kind)) for kind in kinds}
    return found | {
        "module": torch.nn.Linear(3, 2).state_dict()["weight"],
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "turned": torch.randn(4, 5).t()[1:3],
        "view": torch.arange(20.0)[5:9],
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "one": torch.tensor(3.5),
        "none": torch.empty(0, 3),
        "positions": torch.arange(77).expand((1, -1)),
        "first": shared,
        "second": shared[2:],
    }


@pytest.mark.parametrize("form", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_every_kind_of_tensor(form: bool, nested: bool, tmp_path: Path) -> None:
    wanted, file = tensors(), tmp_path / "a.ckpt"
    content = {"state_dict": wanted, "epoch": 3, "score": np.float32(1)} if nested else wanted
    torch.save(content, file, _use_new_zipfile_serialization=form)
    found = read_torch_pickle(file)
    assert list(found) == sorted(wanted)
    assert found.left_out == (("epoch", "score") if nested else ())
    for name, value in wanted.items():
        bits = value.detach().view(torch.uint16) if value.dtype == torch.bfloat16 else value.detach()
        array = bits.numpy()
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert found.dtypes["bfloat16"] == "BF16" and found.dtypes["uint16"] == "U16"


def test_quantized_weights_and_modules_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "a.bin")
    with pytest.raises(ConfigError, match=r"torch\.float8_e4m3fn, which are not read; give the weights in fp16"):
        read_torch_pickle(tmp_path / "a.bin")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.bin")
    with pytest.raises(ConfigError, match=r"torch\.nn\.modules\.linear\.Linear, which weights do not need"):
        read_torch_pickle(tmp_path / "b.bin")
