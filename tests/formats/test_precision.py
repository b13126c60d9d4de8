"""A file's numbers in a smaller type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamcore.errors import RunError
from dreamcore.formats.precision import round_weights
from dreamcore.formats.tensors import Tensors
from dreamcore.formats.weights import write_safetensors


def test_whole_numbers_and_what_the_file_says_stay(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(file, {"weight": np.array([1 / 3, 1e-3]), "ids": np.arange(3)}, {"said": "so"})
    round_weights(file, "fp16")
    tensors = Tensors(file)
    assert tensors.dtypes == {"weight": "F16", "ids": "I64"} and tensors.metadata["said"] == "so"
    assert tensors["weight"].tolist() == np.array([1 / 3, 1e-3]).astype(np.float16).tolist()


def test_a_number_that_does_not_fit_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(file, {"weight": np.array([1e5], np.float32)})
    before = file.read_bytes()
    with pytest.raises(
        RunError, match=r"a\.safetensors: weight: .* has no place in fp16; give save_precision fp32, or bf16"
    ):
        round_weights(file, "fp16")
    assert [f.name for f in tmp_path.iterdir()] == ["a.safetensors"] and file.read_bytes() == before
    round_weights(file, "bf16")
    assert Tensors(file).dtypes == {"weight": "BF16"}
