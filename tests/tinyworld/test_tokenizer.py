"""The embedded model's tokenizer keeps words whole, by its own files and by transformers."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from dreamcore.models.locate import embedded_model
from dreamcore.tinyworld import scene_at
from dreamcore.tinyworld.vocabulary import RARE_WORDS

FOLDER = embedded_model() / "tokenizer"


def pieces(word: str, merges: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding by hand: the merge of lowest rank first."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while ranked := sorted((merges[p], i) for i, p in enumerate(pairwise(parts)) if p in merges):
        i = ranked[0][1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def test_every_word_of_the_captions_and_every_rare_word_is_one_token() -> None:
    vocabulary = json.loads((FOLDER / "vocab.json").read_text("utf-8"))
    lines = (FOLDER / "merges.txt").read_text("utf-8").splitlines()[1:]
    merges = {(a, b): i for i, (a, b) in enumerate(line.split() for line in lines)}
    words = {word for i in range(150) for word in scene_at(5, i)[2].split()} | set(RARE_WORDS)
    for word in words:
        assert pieces(word, merges) == [f"{word}</w>"]
        assert f"{word}</w>" in vocabulary
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_transformers_reads_it_alike() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(FOLDER)
    assert tokenizer.tokenize("A photo of a sks mug") == ["a</w>", "photo</w>", "of</w>", "a</w>", "sks</w>", "mug</w>"]
    ids = tokenizer("a sks mug", padding="max_length", max_length=8).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[4:] == [tokenizer.eos_token_id] * 4
    assert tokenizer.unk_token_id not in tokenizer("zebra! crossing 7", add_special_tokens=False).input_ids
