"""Which words of a run's prompts can name its subject."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dreamcore.config import TrainConfig
from dreamcore.text.prompts import identifier_words
from dreamcore.text.tokenizer import Tokenizer
from dreamcore.training.data_warnings import warn_of_identifier
from dreamcore.training.training_data import Subject

CLASS = {"with_prior_preservation": True, "class_prompt": "a photo of a dog, outside"}
PLACES = {"identifier": "sks", "class_word": "dog"}
KNOWN = ("a", "photo", "of", "in", "dog", "teapot", "bob")
RARE = ("sks", "bmw", "qzt")
MERGES = [
    (word[:end], word[end] + ("</w>" if end == len(word) - 1 else ""))
    for word in (*KNOWN, *RARE)
    for end in range(1, len(word))
]
WEB = Tokenizer(
    {f"{word}</w>": number for number, word in enumerate(KNOWN)}
    | {f"{word}</w>": 45_000 + number for number, word in enumerate(RARE)}
    | {f"token {number}": number for number in range(10, 45_000)},
    MERGES,
    75,
)
"""A vocabulary of CLIP's size, common words first."""
SMALL = Tokenizer({"dog</w>": 0, "sks</w>": 1}, MERGES, 75)


@pytest.mark.parametrize(
    ("settings", "captions", "words"),
    [
        ({"instance_prompt": "a photo of a sks dog"}, [None], ["sks"]),
        ({"instance_prompt": "a photo of a sks dog, outside"}, [None], ["sks"]),
        ({"instance_prompt": "a photo of a {identifier} {class}", **PLACES}, [None], ["sks"]),
        ({"use_captions": True, "caption_template": "{identifier} {class}, {caption}", **PLACES}, ["asleep"], ["sks"]),
        ({"use_captions": True, "instance_prompt": "a sks dog"}, ["a dog asleep"], ["sks"]),
        ({"use_captions": True}, ["a sks dog asleep"], []),
    ],
    ids=str,
)
def test_what_is_said_of_every_photograph(
    settings: dict[str, Any], captions: list[str | None], words: list[str]
) -> None:
    given = {"pretrained_model_name_or_path": "m", "instance_data_dir": "d", **CLASS, **settings}
    config = TrainConfig.from_mapping(given)
    folder: Any = SimpleNamespace(photos=[SimpleNamespace(caption=caption) for caption in captions])
    assert identifier_words(config, config.subjects()[0], folder) == words


@pytest.mark.parametrize(
    ("prompt", "class_prompt", "tokenizer", "words"),
    [
        ("a photo of dog", None, WEB, "warn: instance_prompt: 'a photo of dog' has no identifier"),
        ("a photo of dog", "a photo of teapot", WEB, "warn: instance_prompt: 'a photo of dog' has no identifier"),
        ("a photo of bob dog", "a photo of dog", WEB, "warn: instance_prompt: 'a photo of bob dog' has no identifier"),
        ("a photo of sks dog", None, WEB, "note: 'sks' is also a rifle to models trained on the web; it is customary"),
        ("a photo of bmw dog", None, WEB, "warn: 'bmw' is a make of cars to the model"),
        ("a photo of qzt bmw", None, WEB, None),
        ("a photo of qzt dog", "a photo of teapot", WEB, None),
        ("a photo of zwx dog", None, WEB, "warn: 'zwx' splits into 3 tokens"),
        ("a photo of sks dog", "a photo of dog", SMALL, None),
    ],
)
def test_what_is_said_of_the_identifier(
    prompt: str, class_prompt: str | None, tokenizer: Tokenizer, words: str | None
) -> None:
    given = {"pretrained_model_name_or_path": "m", "instance_data_dir": "d", "instance_prompt": prompt}
    prior = {"with_prior_preservation": True, "class_prompt": class_prompt} if class_prompt else {}
    config = TrainConfig.from_mapping(given | prior)
    folder: Any = SimpleNamespace(photos=[SimpleNamespace(caption=None)])
    said: list[str] = []
    subject = Subject(config.subjects()[0], folder, [], [])
    warn_of_identifier(
        config, subject, tokenizer, lambda t: said.append(f"warn: {t}"), lambda t: said.append(f"note: {t}")
    )
    assert len(said) == (words is not None) and "".join(said).startswith(words or ""), said
