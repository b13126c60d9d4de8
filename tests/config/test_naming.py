"""What prompts call a subject."""

from __future__ import annotations

import pytest

from dreamcore.config import TrainConfig
from dreamcore.config.naming import names_in, names_of, without_name
from dreamcore.config.used import idle
from dreamcore.config.when import Context


@pytest.mark.parametrize(
    ("prompt", "class_prompt", "names"),
    [
        ("a photo of sks dog", "a photo of a dog", ("sks", "dog")),
        ("sks teddy bear, oil on canvas", "teddy bear, oil on canvas", ("sks", "teddy bear, oil on canvas")),
        ("a photo of a dog", "a photo of a dog", None),
        ("a photo of a sks teddy bear", "", ("sks", "teddy bear")),
        ("a zwx dog", "cats", ("zwx", "dog")),
        ("portrait", "", None),
        ("a painting of sks dog", "", None),
    ],
)
def test_names_in(prompt: str, class_prompt: str, names: tuple[str, str] | None) -> None:
    assert names_in(prompt, class_prompt) == names


def test_a_prompt_without_the_rare_word() -> None:
    assert without_name("a photo of a sks dog in a sksy bucket", "sks") == "a photo of a dog in a sksy bucket"
    assert without_name("a photo of olis benton dog", "olis benton") == "a photo of dog"
    assert without_name("a  photo", "") == "a  photo", "what is not named stays as it is"


@pytest.mark.parametrize(
    "given",
    [
        {"instance_prompt": "a photo of sks dog"},
        {"instance_prompt": "a photo of {identifier} {class}", "identifier": "sks", "class_word": "dog"},
        {"use_captions": True, "identifier": "sks", "class_word": "dog"},
    ],
)
def test_settings_name_a_subject_where_its_prompt_does_not(given: dict[str, object]) -> None:
    config = TrainConfig.from_mapping(
        {"pretrained_model_name_or_path": "tinyworld", "instance_data_dir": "dog", "output_dir": "out", **given}
    )
    assert names_of(config, config.subjects()[0]) == ("sks", "dog")


@pytest.mark.parametrize("scored", [True, False])
def test_a_rare_word_acts_on_scores_where_no_prompt_has_a_place_for_it(scored: bool) -> None:
    given = {"instance_prompt": "a photo of sks dog", "identifier": "sks", "class_word": "dog"}
    given |= {"validation_prompt": "a sks dog"} | ({"evaluate_steps": 1} if scored else {})
    config = TrainConfig.from_mapping({"pretrained_model_name_or_path": "m", "instance_data_dir": "dog"} | given)
    assert ("identifier" in idle(config, Context("torch", None, frozenset()))) is not scored
    assert "class_word" in idle(config, Context("torch", None, frozenset()))
