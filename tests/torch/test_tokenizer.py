"""Core's tokenizer against transformers' own, on every kind of text; and what is made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamcore.commands.identifiers import cosine_distances
from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import TINYWORLD
from dreamcore.text.rare_tokens import known_word, notable, rare_words
from dreamcore.text.tokenizer import Tokenizer

from ..support import needs

pytestmark = needs.torch


@pytest.fixture(scope="module")
def both(tiny_model: Path):  # type: ignore[no-untyped-def]
    from transformers import CLIPTokenizer

    return Tokenizer.open(ModelFolder.open(str(tiny_model), None, None)), CLIPTokenizer.from_pretrained(
        tiny_model / "tokenizer"
    )


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(codec="utf-8", categories=("L", "Nd", "P", "Zs", "Sm")), max_size=30))
def test_tokens_are_those_of_transformers(both, text: str) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = both
    assert ours.tokenize(text) == theirs.tokenize(text)


@pytest.mark.parametrize(
    "text",
    ["a photo of sks dog", "A PHOTO, of sks-dog's 12 toys!!", "café Größe", "  two   spaces ", "x_y __", "犬 🐕"],
)
def test_usual_prompts(both, text: str) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = both
    assert ours.tokenize(text) == theirs.tokenize(text)
    assert ours.window == 75


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    """Since version 5 it writes one file in place of the two that are published."""
    from transformers import CLIPTokenizer

    model = ModelFolder.open(TINYWORLD)
    copy = Path(shutil.copytree(model.path, tmp_path / "copy"))
    shutil.rmtree(copy / "tokenizer")
    theirs = CLIPTokenizer.from_pretrained(model.path / "tokenizer")
    theirs.save_pretrained(copy / "tokenizer")
    assert sorted(file.name for file in (copy / "tokenizer").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    published, saved = Tokenizer.open(model), Tokenizer.open(ModelFolder.open(str(copy)))
    assert (saved.vocabulary, saved.window) == (published.vocabulary, published.window)
    for text in ("a photo of a red mug in snow", "A PHOTO, of sks-dog's 12 toys!!", "café Größe 犬 🐕", ""):
        assert saved.tokenize(text) == published.tokenize(text) == theirs.tokenize(text)


def test_rare_words_are_short_rare_single_tokens() -> None:
    names = ["the", "of", "dog", "x", "qz", "wug", "long", "a1", "sks", "zzq", "jug", "bmw"]
    vocabulary = {f"{name}</w>": number for number, name in enumerate(names)}
    vocabulary["wug"] = len(vocabulary)

    class Whole(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return [f"{text}</w>"] if text != "wug" else ["wu", "g</w>"]

    tokenizer = Whole(vocabulary, [], 75)
    found = [("zzq", 9), ("sks", 8)]
    assert rare_words(tokenizer, 10) == found, "qz is common, wug two tokens, long too long, jug a word, bmw a make"
    assert rare_words(tokenizer, 10, "big Zzq") == found[1:], "the class's own words"
    assert known_word(tokenizer, "sks") is None and notable(tokenizer, "sks") is None, "this is no web's vocabulary"
    assert known_word(tokenizer, "dog") == "a common word"
    assert known_word(tokenizer, "zzq") is None and known_word(tokenizer, "wug") is None


def test_distance_by_hand() -> None:
    np.testing.assert_allclose(
        cosine_distances(np.array([1, 0], np.float32), np.array([[2, 0], [0, 3], [-1, 0], [1, 1]], np.float32)),
        [0, 1, 2, 1 - 0.5**0.5],
        atol=1e-7,
    )


def test_embeddings_end_where_the_prompt_does(tiny_model: Path) -> None:
    """Against transformers' pooled output, which is the normalised answer at the end mark."""
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    from dreamcore.backends.registry import load_backend
    from dreamcore.config import GenerateConfig

    config = GenerateConfig.from_mapping(
        {"pretrained_model_name_or_path": str(tiny_model), "prompt": "x", "device": "cpu"}
    )
    backend = load_backend("torch", ModelFolder.open(str(tiny_model), None, None), config)
    prompts = ["a photo of dog", "a photo of sks dog in snow"]
    ours = backend.embed(prompts)
    encoder = CLIPTextModel.from_pretrained(tiny_model / "text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(tiny_model / "tokenizer")
    with torch.no_grad():
        for prompt, answer in zip(prompts, ours, strict=True):
            hidden = encoder(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0, -1].numpy()
            np.testing.assert_allclose(answer, hidden, atol=1e-5)
