"""Which words of a run's prompts can name its subject."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dreamcore.config import TrainConfig
from dreamcore.text.prompts import identifier_words
from dreamcore.text.rare_tokens import AnyTokenizer
from dreamcore.text.tokenizer import Tokenizer
from dreamcore.text.wordpiece import WordPiece
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
PIECES = (
    "[UNK]",
    *"一张只小狗的照片在雪地上",
    "the",
    "dog",
    "cat",
    "sk",
    "##s",
    "bmw",
    "qzt",
    *(f"[unused{n}]" for n in range(21_100)),
)
BERT = WordPiece({piece: number for number, piece in enumerate(PIECES)}, 30)
"""A vocabulary of the size of BERT's Chinese one, Latin words by their frequency."""


@pytest.mark.parametrize(
    ("settings", "captions", "words"),
    [
        ({"instance_prompt": "a photo of a sks dog"}, [None], ["sks"]),
        ({"instance_prompt": "a photo of a sks dog, outside"}, [None], ["sks"]),
        ({"instance_prompt": "a photo of a {identifier} {class}", **PLACES}, [None], ["sks"]),
        ({"use_captions": True, "caption_template": "{identifier} {class}, {caption}", **PLACES}, ["asleep"], ["sks"]),
        ({"use_captions": True, "instance_prompt": "a sks dog"}, ["a dog asleep"], ["sks"]),
        ({"use_captions": True}, ["a sks dog asleep"], []),
        ({"instance_prompt": "一张sks小狗，照片。", "class_prompt": "一张小狗的照片"}, [None], ["sks"]),
        ({"instance_prompt": "“花花”，小狗", "class_prompt": "一张小狗的照片"}, [None], ["花"]),
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
        ("一张qzt小狗的照片", None, BERT, None),
        ("一张bmw小狗的照片", None, BERT, "warn: 'bmw' is a make of cars to the model"),
        ("一张sks小狗的照片", "一张小狗的照片", BERT, "warn: 'sks' splits into 2 tokens (sk ##s)"),
        ("一张小狗的照片", None, BERT, "warn: instance_prompt: '一张小狗的照片' has no identifier"),
        ("一张qzt犬的照片", None, BERT, "warn: '犬' is not in the model's vocabulary: it reads [UNK]"),
        ("a photo of qzt 小狗", None, WEB, "warn: '小狗': the model's vocabulary has no Chinese characters"),
    ],
)
def test_what_is_said_of_the_identifier(
    prompt: str, class_prompt: str | None, tokenizer: AnyTokenizer, words: str | None
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
