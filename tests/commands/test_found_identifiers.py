"""What `dreambooth identifiers` keeps: for one model, class and choice of words, and believed only when it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.commands.found_identifiers import Kept
from dreamcore.config.identifiers import IdentifiersConfig
from dreamcore.models.folder import ModelFolder

WORDS, DISTANCES = ["zwx", "sks"], [0.25, 0.125]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the embedded model, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(ModelFolder.open("tinyworld").path, tmp_path / "model"))


def kept(model: Path, words: list[str] = WORDS, **settings: Any) -> Kept:
    config = IdentifiersConfig.from_mapping({"pretrained_model_name_or_path": str(model)} | settings)
    return Kept(config, ModelFolder.of(config), words)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "dreambooth" / "identifiers").iterdir())


def test_what_it_depends_on(model: Path, tmp_path: Path) -> None:
    assert kept(model).read() is None
    kept(model).write(DISTANCES)
    assert kept(model, num_identifiers=3, device="cpu", seed=4).read() == DISTANCES
    assert kept(model, WORDS[::-1]).read() is None and kept(model, class_word="dog").read() is None
    assert kept(model, mixed_precision="bf16").read() is None
    moved = model.rename(tmp_path / "moved")
    assert kept(moved).read() == DISTANCES
    weights = moved / "text_encoder" / "model.safetensors"
    save_file({name: np.asarray(2 * value) for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    assert kept(moved).read() is None
    kept(moved).write(DISTANCES)
    (moved / "tokenizer" / "merges.txt").write_text((moved / "tokenizer" / "merges.txt").read_text() + "\n")
    assert kept(moved).read() is None
    assert len(files(tmp_path)) == 2


def test_damage_is_not_believed_and_written_anew(model: Path, tmp_path: Path) -> None:
    kept(model).write(DISTANCES)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for damaged in (
        *(b"", whole[:-3], b"[]", b"{}", b'{"words": [], "distances": []}', b"\xff"),
        *(whole.replace(b"0.125", other) for other in (b"NaN", b"null", b"0.125, 0.5")),
        whole.replace(b"zwx", b"zwy"),
    ):
        file.write_bytes(damaged)
        assert kept(model).read() is None, damaged
        kept(model).write(DISTANCES)
        assert file.read_bytes() == whole and files(tmp_path) == [file]


def test_nothing_is_kept_of_broken_models_nor_where_nothing_can_be(model: Path, tmp_path: Path) -> None:
    kept(model).write([0.5, float("nan")])
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache").write_text("no folder")
    kept(model).write(DISTANCES)
    assert kept(model).read() is None
