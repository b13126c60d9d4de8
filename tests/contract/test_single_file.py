"""A model in one file trains as its folder does, on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.models.to_original import write_single_file

from ..support.runs import numbers, small_run


@pytest.mark.parametrize("backend", installed_backends())
def test_a_run_of_a_single_file(
    backend: str, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_single_file(tiny_model, tmp_path / "model.safetensors")
    settings = {"backend": backend, "max_train_steps": 1, "resolution": 16}
    folder = small_run(tiny_model, photos, tmp_path / "folder", **settings)
    described = {"original_config": str(tiny_model)}
    file = small_run(tmp_path / "model.safetensors", photos, tmp_path / "file", **settings, **described)
    found, wanted = ([line["loss"] for line in numbers(run)] for run in (file, folder))
    assert len(found) == 1 and found == wanted
