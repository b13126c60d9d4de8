"""BERT's tokenizer without a framework, beside transformers' and Paddle's own; rare words of its vocabulary."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamcore.errors import ConfigError
from dreamcore.io.text import is_chinese
from dreamcore.text.rare_tokens import known_word, notable, rare_words
from dreamcore.text.tokenizer import with_old_files
from dreamcore.text.wordpiece import Spelling, WordPiece

from ..support.tiny_taiyi import write_wordpiece

TEXTS = [
    "一张sks小狗的照片",
    "小狗在雪地上，a photo of sks dog。",
    "A PHOTO of the SKS-dog's 12 toys!!",
    "café Größe Ångström ÉÉ",
    "  two\tspaces\u3000and\u00a0more\u200b ",
    "[MASK] in [CLS]on[SEP] [mask]",
    "犬 🐕 x" + "y" * 120 + "，",
    "$5 + 3 < 4 ^ ~ ¥ × ：",
    "",
]
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed here")
KINDS = {
    "lower": {},
    "as it is": {"do_lower_case": False},
    "no accents": {"do_lower_case": False, "strip_accents": True},
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer's folder, as published."""
    made = tmp_path_factory.mktemp("wordpiece") / "tokenizer"
    write_wordpiece(made, lower=request.param == "lower")
    file = made / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | KINDS[request.param]), "utf-8")
    return made


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[WordPiece, Any]:
    from transformers import BertTokenizer

    return WordPiece.read(folder, 30), BertTokenizer.from_pretrained(folder)


@needs_transformers
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_transformers(both: tuple[WordPiece, Any], text: str) -> None:
    ours, theirs = both
    tokens = ours.tokenize(text)
    assert tokens == theirs.tokenize(text)
    assert [ours.vocabulary[token] for token in tokens] == theirs(text, add_special_tokens=False)["input_ids"]


LETTERS = st.characters(max_codepoint=0x52F, categories=("Lu", "Ll", "Lo", "Nd", "P", "Zs", "Sm", "Sc", "Cc"))
"""Latin, Greek, Cyrillic: of scripts that Unicode still adds to, each library knows what was there when it was made."""
USUAL = "一张小狗照片Photo of sksdog,. 12ß\u0301\u0327—…“”、》「\u3000"
ANY = st.text(st.one_of(st.sampled_from(USUAL), LETTERS), max_size=30)


@needs_transformers
@settings(max_examples=200, deadline=None)
@given(ANY)
def test_any_text(both: tuple[WordPiece, Any], text: str) -> None:
    ours, theirs = both
    assert ours.tokenize(text) == theirs.tokenize(text)


@pytest.mark.skipif(find_spec("paddle") is None, reason="the Paddle environment is not installed here")
def test_paddle_trains_on_the_same_tokens(folder: Path) -> None:
    """Its own tokenizer parts words at symbols such as +, × and ¥ in another way."""
    from dreamcore.adapters.paddle.models import read_in_paddle

    ours, theirs = WordPiece.read(folder, 30), read_in_paddle("BertTokenizer", folder)
    for text in TEXTS:
        tokens = ours.tokenize(text)
        assert theirs.tokenize(text) == tokens
        ids = theirs([text], max_length=200, truncation=True)["input_ids"][0]
        marks = ours.vocabulary["[CLS]"], ours.vocabulary["[SEP]"]
        assert list(ids) == [marks[0], *(ours.vocabulary[token] for token in tokens), marks[1]]


def test_by_hand(tmp_path: Path) -> None:
    pieces = ["[UNK]", "un", "##aff", "##able", "##a", "狗", "小", ","]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), "utf-8")
    read = WordPiece.read(tmp_path, 30)
    assert read.tokenize("Unaffable,小狗 unb") == ["un", "##aff", "##able", ",", "小", "狗", "[UNK]"]
    assert (read.vocabulary["狗"], read.window) == (5, 30)
    assert WordPiece(read.vocabulary, 30, Spelling(chinese=False)).tokenize("小狗") == ["[UNK]"]
    assert is_chinese("狗") and is_chinese("\U00020000") and not is_chinese("の") and not is_chinese("g")


def test_one_file_is_read_and_made_two(folder: Path, tmp_path: Path) -> None:
    """transformers 5 writes `tokenizer.json` alone; older readers want `vocab.txt`."""
    wanted = WordPiece.read(folder, 30)
    vocabulary = dict(sorted(wanted.vocabulary.items()))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": vocabulary}}), "utf-8")
    (tmp_path / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    read = WordPiece.read(tmp_path, 30)
    assert read.vocabulary == wanted.vocabulary
    assert all(read.tokenize(text) == wanted.tokenize(text) for text in TEXTS)
    with with_old_files(tmp_path) as made:
        assert (made / "vocab.txt").read_text("utf-8") == (folder / "vocab.txt").read_text("utf-8")
    with with_old_files(folder) as same:
        assert same == folder


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vocab.txt", "a\nb\n", r"vocab\.txt: no BERT tokenizer there: it has no \[UNK\]"),
        ("tokenizer.json", "{}", r"tokenizer\.json: no BERT tokenizer there: 'model' is missing"),
        ("tokenizer.json", '{"model": {"vocab": [["a", 1]]}}', r"tokenizer\.json: no BERT tokenizer there: .*'list'"),
        ("other", "", r"vocab\.txt: no BERT tokenizer there: .*No such file"),
    ],
)
def test_damaged_files_are_named(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=f"pretrained_model_name_or_path: .*{words}"):
        WordPiece.read(tmp_path, 30)


def test_rare_words_are_latin_and_by_their_place_among_words() -> None:
    pieces = ["[UNK]", "的", "狗", "the", "of", "##s", "dog", "cat", "xq", "##abc", "usb", "ps", "vfm", "kiehl", "狸"]
    tokenizer = WordPiece({piece: number for number, piece in enumerate(pieces)}, 30)
    assert rare_words(tokenizer, 10) == [("vfm", 12), ("ps", 11)], "xq is in the common half"
    assert known_word(tokenizer, "dog") == known_word(tokenizer, "狗") == "a common word"
    assert known_word(tokenizer, "vfm") is None
    assert known_word(tokenizer, "vfms") is None, "two tokens"
    assert notable(tokenizer, "usb") is None, "a miniature"
    large = WordPiece(tokenizer.vocabulary | {f"[unused{n}]": 100 + n for n in range(21_128)}, 30)
    assert notable(large, "usb") == "a plug"
