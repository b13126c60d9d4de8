"""Class images: what is missing is made, what is there is used or left alone, and it is said which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamcore.errors import ConfigError
from dreamcore.io.names import CLASS_IMAGES
from dreamcore.training.loop import Run

from ..support.runs import PRIOR, numbers, small_run


def run_with(model: Path, photos: Path, output: Path, classes: Path, **settings: Any) -> Run:
    return small_run(model, photos, output, **PRIOR | {"class_data_dir": str(classes), "max_train_steps": 1} | settings)


def test_missing_images_are_made_and_recorded(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    run_with(tiny_model, photos, tmp_path / "a", classes)
    pictures = sorted(classes.glob("*.png"))
    manifest = json.loads((classes / CLASS_IMAGES).read_text())["images"]
    assert [manifest[p.name]["seed"] for p in pictures] == [0, 1, 2]
    assert {e["prompt"] for e in manifest.values()} == {"a photo of dog"}
    assert len({p.read_bytes() for p in pictures}) == 3, "each from its own seed"
    times = [p.stat().st_mtime_ns for p in pictures]
    run_with(tiny_model, photos, tmp_path / "b", classes, num_class_images=4)
    assert [p.stat().st_mtime_ns for p in pictures] == times, "what is there is not made again"
    assert len(list(classes.glob("*.png"))) == 4


def test_an_interruption_loses_and_repeats_nothing(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    whole = run_with(tiny_model, photos, tmp_path / "a", tmp_path / "whole")
    broken = Path(shutil.copytree(tmp_path / "whole", tmp_path / "broken"))
    gone = sorted(broken.glob("*.png"))[1]
    data = gone.read_bytes()
    gone.unlink()
    again = run_with(tiny_model, photos, tmp_path / "b", broken)
    assert gone.read_bytes() == data
    assert numbers(again) == numbers(whole)


def test_the_users_own_images_count(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    classes.mkdir()
    for i in range(2):
        Image.new("RGB", (40, 40), (90 * i, 50, 70)).save(classes / f"mine-{i}.jpg")
    run_with(tiny_model, photos, tmp_path / "a", classes)
    assert len(list(classes.glob("*.png"))) == 1
    assert len(list(classes.glob("*.jpg"))) == 2


def test_strangers_are_named_and_left_alone(
    tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    classes = tmp_path / "classes"
    run_with(tiny_model, photos, tmp_path / "a", classes)
    first = {p.name: p.read_bytes() for p in classes.glob("*.png")}
    other = run_with(tiny_model, photos, tmp_path / "b", classes, class_prompt="a photo of cat")
    assert "3 images" in capfd.readouterr().err
    assert {n: (classes / n).read_bytes() for n in first} == first
    alone = run_with(tiny_model, photos, tmp_path / "c", tmp_path / "cats", class_prompt="a photo of cat")
    assert numbers(other) == numbers(alone), "only its own class images are trained on"


def test_a_damaged_image_of_the_users_is_named_first(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    classes.mkdir()
    (classes / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and then nothing")
    with pytest.raises(ConfigError, match=r"broken\.jpg"):
        run_with(tiny_model, photos, tmp_path / "a", classes)
    assert not list(classes.glob("*.png"))


def test_a_damaged_manifest_is_named(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    run_with(tiny_model, photos, tmp_path / "a", classes)
    (classes / CLASS_IMAGES).write_text("{")
    with pytest.raises(ConfigError, match=f"{CLASS_IMAGES}: damaged"):
        run_with(tiny_model, photos, tmp_path / "b", classes)
