"""Runs whose photographs, or class images, are in a zip."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dreamcore.errors import ConfigError

from ..support.stub_runs import contents, train

PRIOR = {"with_prior_preservation": True, "class_prompt": "a photo of a mug"}


@pytest.fixture
def photos(drawn: Path, tmp_path: Path) -> Path:
    """Three photographs in a zip."""
    return Path(shutil.make_archive(str(tmp_path / "photos"), "zip", drawn.parent, drawn.name))


def refused(match: str, model: Path, photos: Path, out: Path, **settings: Any) -> None:
    """Assert that a run is refused and that nothing is written."""
    before = contents(out.parent)
    with pytest.raises(ConfigError, match=match):
        train(model, photos, out, **settings)
    assert contents(out.parent) == before


def test_a_run_goes_on_with_a_zip_that_was_moved(stub_model: Path, drawn: Path, photos: Path, tmp_path: Path) -> None:
    out, more = tmp_path / "out", {"resume_from_checkpoint": "latest"}
    beside = contents(photos.parent)
    assert train(stub_model, photos, out).updates == 4
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("out")} == beside
    assert str(photos) in (out / "config.yaml").read_text()
    assert sorted(file.name for file in (out / "subject").iterdir()) == ["00.png", "01.png", "02.png"], "for the report"
    (tmp_path / "new").mkdir()
    moved = photos.rename(tmp_path / "new" / "renamed.zip")
    assert train(stub_model, moved, out, max_train_steps=5, **more).updates == 5
    assert train(stub_model, drawn, out, max_train_steps=6, **more).updates == 6, "unpacked"
    with zipfile.ZipFile(moved, "a") as opened:
        opened.write(drawn / "00.png", "photos/extra.png")
    refused("instance_data_dir: the photographs", stub_model, moved, out, max_train_steps=7, **more)


def test_a_zip_among_the_results(stub_model: Path, finished: Path, photos: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    inside = photos.rename(out / "samples" / "photos.zip")
    for path in (inside, inside / "photos"):
        refused(
            r"instance_data_dir: .*photos\.zip.* lies in .*samples", stub_model, path, out, overwrite_output_dir=True
        )
    refused(r"output_dir: .*photos\.zip", stub_model, inside, inside)


def test_class_images_in_a_zip(stub_model: Path, drawn: Path, photos: Path, tmp_path: Path) -> None:
    classes = Path(shutil.copy(photos, tmp_path / "classes.zip"))
    given = {**PRIOR, "class_data_dir": str(classes)}
    out = tmp_path / "out"
    refused(
        r"classes\.zip: holds 3 images of num_class_images = 4", stub_model, drawn, out, num_class_images=4, **given
    )
    missing = {**given, "class_data_dir": str(tmp_path / "none.zip")}
    refused(r"class_data_dir: .*none\.zip does not exist", stub_model, drawn, out, num_class_images=2, **missing)
    refused(
        "class_data_dir: .*is instance_data_dir as well",
        stub_model,
        photos,
        out,
        **{**given, "class_data_dir": str(photos)},
    )
    before = classes.read_bytes()
    assert train(stub_model, drawn, out, num_class_images=2, **given).updates == 4
    assert classes.read_bytes() == before and not list(tmp_path.glob("*.lock"))
    state = json.loads((out / "checkpoint-4" / "state.json").read_text())
    assert state["class_data"]
