"""Which words of a run's prompts can name its subject."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dreamcore.config import TrainConfig
from dreamcore.prompts import identifier_words

CLASS = {"with_prior_preservation": True, "class_prompt": "a photo of a dog, outside"}
PLACES = {"identifier": "sks", "class_word": "dog"}


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
