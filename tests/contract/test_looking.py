"""What presets look at without being asked: images of the instance prompt, before training and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamcore.config import TrainConfig, load_config, preset_names
from dreamcore.models.folder import ModelFolder
from dreamcore.training.loop import train
from dreamcore.training.training_data import open_training_data
from dreamcore.training.validation import ValidationImages

from ..support.runs import CONCEPTS, SMALL, configuration, numbers

YOURS = {"instance_data_dir": "photos", "instance_prompt": "a photo of sks dog"}
CHEAP = {"num_validation_images": 2, "validation_num_inference_steps": 2}


def of_preset(model: Path, photos: Path, output: Path, **settings: Any) -> TrainConfig:
    folders = {"pretrained_model_name_or_path": str(model), "instance_data_dir": str(photos), "output_dir": str(output)}
    return load_config(TrainConfig, "sd15-lora", {**SMALL, **folders, **settings})


def test_a_preset_shows_the_result_and_trains_as_without(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    looking = train(of_preset(tiny_model, photos, tmp_path / "a", **CHEAP))
    made = sorted(f.name for f in (looking.folder / "samples").iterdir())
    assert made == [f"step-{step:06}-{k}.png" for step in (0, 4) for k in range(2)]
    assert yaml.safe_load((looking.folder / "config.yaml").read_text())["validation_prompt"] == "a photo of sks dog"
    assert "No validation images" not in (looking.folder / "report.html").read_text()
    plain = train(of_preset(tiny_model, photos, tmp_path / "b", validation_prompt=None))
    assert not (plain.folder / "samples").exists()
    assert numbers(looking) == numbers(plain)


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ({"instance_prompt": "a {class} {identifier}", "identifier": "sks", "class_word": "dog"}, "a dog sks"),
        ({"instance_prompt": None, "use_captions": True, "caption_template": "see {caption}"}, "see a toy"),
        ({"use_captions": True}, "a photo of sks dog"),
        ({**CONCEPTS, "concepts": [{"instance_prompt": "a sks cat"}, {"instance_prompt": "a qzt toy"}]}, "a sks cat"),
    ],
)  # fmt: skip
def test_the_first_concepts_words_are_taken(
    settings: dict[str, Any], prompt: str, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for file in photos.iterdir():
        (tmp_path / "photos" / file.name).symlink_to(file)
        (tmp_path / "photos" / file.with_suffix(".txt").name).write_text("a toy")
    for concept in settings.get("concepts", ()):
        concept["instance_data_dir"] = str(tmp_path / "photos")
    asked = {"validation_prompt": "{instance_prompt} in snow", **settings}
    config = configuration(tiny_model, tmp_path / "photos", tmp_path / "run", **asked)
    looked_at = ValidationImages.from_config(config, open_training_data(config, ModelFolder.of(config), print))
    assert looked_at is not None
    assert looked_at.sampler.prompt == f"{prompt} in snow"


@pytest.mark.parametrize("name", preset_names())
def test_presets_look_twice_unless_more_is_asked_for(name: str) -> None:
    config = load_config(TrainConfig, name, YOURS)
    if name == "if2-lora":
        return  # which makes images of smaller ones that the user gives
    assert config.validation_prompt
    if name == "quickstart":
        return  # it is there to be looked at
    assert config.validation_steps == config.max_train_steps
    usual = TrainConfig.model_fields["validation_steps"].default
    for more in ({"validation_prompt": "a sks dog in snow"}, {"validation_data_dir": "others"}):
        assert load_config(TrainConfig, name, {**YOURS, **more}).validation_steps == usual
    assert load_config(TrainConfig, name, {**YOURS, "validation_prompt": None}).validation_prompt is None
    assert load_config(TrainConfig, None, {**YOURS, "pretrained_model_name_or_path": "m"}).validation_prompt is None
