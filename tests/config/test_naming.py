"""What prompts call a subject."""

from __future__ import annotations

import pytest

from dreamcore.config.naming import names_in, without_name


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
