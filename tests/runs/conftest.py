"""What these tests share: the stub, its model, and one finished run of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamcore.backends import installed

from ..support import stub_backend
from ..support.stub_runs import train
from ..support.tiny import draw_photos


@pytest.fixture(scope="package")
def stub_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, with weights of a few bytes."""
    return stub_backend.write_model(tmp_path_factory.mktemp("stub") / "model")


@pytest.fixture(scope="package")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images."""
    return draw_photos(tmp_path_factory.mktemp("drawn") / "photos", count=3, size=64)


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "entry_points", lambda: {stub_backend.NAME: f"{stub_backend.__name__}:load"})


@pytest.fixture(scope="package")
def finished(stub_model: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; for copying, not for changing."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "entry_points", lambda: {stub_backend.NAME: f"{stub_backend.__name__}:load"})
        train(stub_model, drawn, folder)
    return folder
