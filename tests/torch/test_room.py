"""The denoiser makes room for text encoders, and comes back whatever happens meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ..support import needs
from ..support.runs import prepared

pytestmark = needs.torch


@pytest.mark.parametrize("fails", [False, True])
def test_the_denoiser_comes_back(
    fails: bool, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        backend: Any = prepared(tiny_model, photos, tmp_path, stack).backend
        places: list[str] = []
        monkeypatch.setattr(backend, "device", SimpleNamespace(type="cuda"))
        monkeypatch.setattr(backend, "denoiser", SimpleNamespace(device="home", to=places.append))
        monkeypatch.setattr(backend, "offload", lambda: places.append("offloaded"))
        with pytest.raises(ZeroDivisionError) if fails else ExitStack(), backend._denoiser_offloaded():
            assert places == ["cpu"]
            if fails:
                raise ZeroDivisionError
        assert places == ["cpu", "offloaded", "home"]
