"""Which files of a run are published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamcore.errors import ConfigError
from dreamcore.hub.selection import last_samples, published_files, without_places


def images(folder: Path, *updates: int) -> Path:
    (folder / "samples").mkdir(parents=True)
    for update in updates:
        for number in (0, 1, 10):
            (folder / "samples" / f"step-{update:06}-{number}.png").write_bytes(b"")
    return folder


def test_the_last_images_are_those_of_what_was_trained(tmp_path: Path) -> None:
    run = images(tmp_path / "run", 0, 200, 1_000_000, 400)
    assert last_samples(run) == [f"samples/step-1000000-{number}.png" for number in (0, 1, 10)]
    assert last_samples(run, updates=450) == [f"samples/step-000400-{number}.png" for number in (0, 1, 10)]
    assert last_samples(images(tmp_path / "untrained", 0)) == []
    assert last_samples(tmp_path) == []


def test_what_is_not_finished_is_not_published(tmp_path: Path) -> None:
    run = images(tmp_path / "run", 200)
    (run / "unet").mkdir()
    (run / "unet" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="push_to_hub: .*run: holds no finished model"):
        published_files(run)
    (run / "model_index.json").write_text("{")
    with pytest.raises(ConfigError, match="model_index.json: is damaged"):
        published_files(run)


def test_an_index_leads_nowhere_else(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    index = {"../other": ["diffusers", "X"], str(other): ["diffusers", "X"], "..": ["a", "b"], ".": ["a", "b"]}
    (run / "model_index.json").write_text(json.dumps(index))
    assert list(published_files(run)) == ["model_index.json"]


def test_a_model_in_paddles_layout(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("config.json", "model_state.pdparams", "model_state.fp16.pdparams"):
        (tmp_path / "unet" / name).write_bytes(b"")
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["ppdiffusers", "UNet2DConditionModel"]}))
    assert list(published_files(tmp_path)) == ["model_index.json", "unet/config.json", "unet/model_state.pdparams"]


@pytest.mark.parametrize("place", ["/home/somebody/models/sd", "~/sd", "C:\\Users\\somebody\\sd", "\\\\host\\sd"])
def test_configurations_go_without_places_on_this_machine(tmp_path: Path, place: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"_class_name": "UNet", "_name_or_path": place, "sample_size": 64}))
    changed = without_places(file)
    assert isinstance(changed, bytes)
    assert json.loads(changed) == {"_class_name": "UNet", "sample_size": 64}


@pytest.mark.parametrize("content", ['{"_name_or_path":  "owner/model"}', '{"a": "/b"}', "[1]", "{", '"/a"'])
def test_other_configurations_go_as_they_are(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    assert without_places(file) == file
