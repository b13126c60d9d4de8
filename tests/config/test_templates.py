"""Presets' prompts are templates: what fills them, what is read from the user's own prompt, and what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import TrainConfig, load_config, preset_names, read_config_file
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.training.training_data import open_training_data
from dreamcore.training.validation import ValidationImages

from ..support.tiny import draw_photos


def words(folder: Path, preset: str, **given: Any) -> tuple[str, str | None, str]:
    """The prompts of a preset's run: of the photographs, of the class, of the validation."""
    draw_photos(folder, count=1)
    model = {"pretrained_model_name_or_path": "tinyworld", "instance_data_dir": str(folder), "use_captions": False}
    config = load_config(TrainConfig, preset, {**model, **given})
    data = open_training_data(config, ModelFolder.of(config), lambda text: None)
    looked_at = ValidationImages.from_config(config, data)
    assert looked_at is not None
    return data.subjects[0].prompts[0][0], config.class_words(data.subjects[0].concept), looked_at.sampler.prompt


SKS_DOG = {"identifier": "sks", "class_word": "dog"}


@pytest.mark.parametrize(
    ("preset", "given", "expected"),
    [
        ("sd15-lora", SKS_DOG, ("a photo of sks dog", None, "a photo of sks dog")),
        ("quickstart", SKS_DOG, ("a photo of a sks dog", "a photo of a dog", "a photo of a sks dog on grass")),
        (
            "quickstart",
            {"instance_prompt": "a photo of a sks dog"},  # by itself
            ("a photo of a sks dog", "a photo of a dog", "a photo of a sks dog on grass"),
        ),
        ("sd15-face", {"instance_prompt": "a photo of ohwx man"}, ("a photo of ohwx man", "a photo of man", None)),
        ("sd15-face", {"instance_prompt": "ohwx, smiling"}, ("ohwx, smiling", "a photo of person", None)),
        ("sd15-face", {"identifier": "ohwx"}, ("a photo of ohwx person", "a photo of person", None)),
        (
            "quickstart",
            {"instance_prompt": "a photo of a sks dog", "class_word": "puppy"},  # which is given, and not read
            ("a photo of a sks dog", "a photo of a puppy", "a photo of a sks dog on grass"),
        ),
        (
            "sd15-lora",
            {**SKS_DOG, "validation_prompt": "a {class} named {identifier}, not {instance_prompt}"},
            ("a photo of sks dog", None, "a dog named sks, not a photo of sks dog"),
        ),
    ],
)
def test_a_presets_prompts_are_about_the_users_subject(
    preset: str, given: dict[str, Any], expected: tuple[str, str | None, str | None], tmp_path: Path
) -> None:
    instance, of_class, validation = expected
    assert words(tmp_path / "photos", preset, **given) == (instance, of_class, validation or instance)


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_names_a_subject_of_its_own(name: str) -> None:
    preset = read_config_file(name)
    assert preset["instance_prompt"] in ("a photo of {identifier} {class}", "a photo of a {identifier} {class}")
    assert "{class}" in preset.get("class_prompt", "{class}")
    assert "{instance_prompt}" in preset.get("validation_prompt", "{instance_prompt}")


@pytest.mark.parametrize(
    ("preset", "given", "said"),
    [
        ("quickstart", {"instance_prompt": "my dog rex"}, "class_prompt: 'a photo of a {class}' asks for the class"),
        ("quickstart", {"instance_prompt": "a photo of a dog"}, "give class_word \\(--class dog\\)"),
        ("sd15-lora", {}, "instance_prompt: required unless use_captions is on"),
        ("sd15-lora", {"identifier": "sks"}, "instance_prompt: required unless use_captions is on"),
        (
            "sd15-lora",
            {"instance_prompt": "sks", "validation_prompt": "a {class}"},
            "validation_prompt: 'a {class}' asks",
        ),
    ],
)
def test_words_that_are_missing_are_asked_for_before_anything_is_opened(
    preset: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said.replace("{", r"\{").replace("}", r"\}")):
        load_config(TrainConfig, preset, {"instance_data_dir": "photos", **given})


def test_what_is_read_from_a_prompt_is_said() -> None:
    config = load_config(
        TrainConfig, "quickstart", {"instance_data_dir": "x", "instance_prompt": "a photo of sks toy car"}
    )
    assert config.class_word == "toy car"
    assert config.notes == ["class_word 'toy car', as in 'a photo of sks toy car'; --class says otherwise"]
