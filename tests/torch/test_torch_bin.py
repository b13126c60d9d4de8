"""PyTorch reads the pickles that are written without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreamcore.formats.torch_bin import write_bin

from ..support import needs
from ..support.odd_arrays import odd_arrays

pytestmark = needs.torch


def test_what_torch_loads(tmp_path: Path) -> None:
    """Without running what is in it, and as tensors that lie in memory as their own would."""
    import torch

    wanted = odd_arrays()
    write_bin(tmp_path / "a.bin", wanted)
    for mapped in (False, True):
        found = torch.load(tmp_path / "a.bin", weights_only=True, mmap=mapped)
        assert list(found) == list(wanted)
        for name, tensor in found.items():
            assert tensor.is_contiguous() and tensor.shape == wanted[name].shape, name
            np.testing.assert_array_equal(
                tensor.numpy(), wanted[name], err_msg=name, strict=wanted[name].dtype.isnative
            )
    torch.save(found, tmp_path / "theirs.bin")
    again = torch.load(tmp_path / "theirs.bin", weights_only=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in found.items())
