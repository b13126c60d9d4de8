"""CLIP's vocabulary is the published one."""

from __future__ import annotations

from pathlib import Path

from dreamcore.formats.clip_vocabulary import PAIRS, merges, vocabulary, write_clip_tokenizer
from dreamcore.io.hashing import file_sha256
from dreamcore.text.tokenizer import Tokenizer, read_bpe

# numbers in the vocab.json of openai/clip-vit-large-patch14
KNOWN = {"!": 0, "a": 64, "a</w>": 320, "dog</w>": 1929, "sks</w>": 48136, "photo</w>": 1125, "of</w>": 539}
MARKS = {"<|startoftext|>": 49406, "<|endoftext|>": 49407}


def test_numbers_are_those_of_the_published_vocabulary() -> None:
    numbers = vocabulary()
    assert {token: numbers[token] for token in KNOWN | MARKS} == KNOWN | MARKS
    assert list(numbers.values()) == list(range(49_408))
    assert (merges()[0], merges()[-1], len(merges())) == ("i n", "jeky ll</w>", 48_894)


def test_the_file_is_the_one_that_openai_published() -> None:
    digest = file_sha256(PAIRS)
    assert digest == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    assert digest in PAIRS.with_name("README.md").read_text(encoding="utf-8")


def test_the_folder_is_read_by_our_own_tokenizer(tmp_path: Path) -> None:
    write_clip_tokenizer(tmp_path / "tokenizer")
    numbers, pairs = read_bpe(tmp_path / "tokenizer")
    assert numbers == vocabulary()
    tokens = Tokenizer(numbers, pairs, 75).tokenize("a photo of sks dog")
    assert [numbers[token] for token in tokens] == [320, 1125, 539, 48136, 1929]
