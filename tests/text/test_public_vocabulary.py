"""CLIP's whole vocabulary, as published: core's tokens beside each library's own, and the words that are rare in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamcore.backends.installed import installed_backends
from dreamcore.formats.clip_vocabulary import SIZE, write_clip_tokenizer
from dreamcore.formats.t5_vocabulary import pieces
from dreamcore.models.folder import ModelFolder
from dreamcore.text.known_words import NAMES
from dreamcore.text.known_words import WORDS as KNOWN
from dreamcore.text.rare_tokens import LETTERS, known_word, notable, rare_words
from dreamcore.text.tokenizer import Tokenizer, read_bpe
from dreamcore.tinyworld.vocabulary import CLASSES, COLOURS, PLACES, RARE_WORDS, TEMPLATES

TEXTS = [
    "a photo of sks dog in a bucket, 35mm f/1.8",
    "It's John's dog, they're we've I'm she'll he'd DON'T O'Neil 's's",
    "café Größe naïve Ångström ÇA İstanbul ŞIŞLI ΌΣΟΣ ς",
    "一张小狗的照片，在雪地上。",
    "犬 🐕\u200d🦺 👩\u200d👩\u200d👧 ❤️ :-) (^_^) ½ ² № ﬁ ＡＢＣ",
    "한국어 日本語 ภาษาไทย العربية हिन्दी",
    "1girl, solo, {{masterpiece}}, ((best quality)), a_b __init__ x-y—z “quoted” don’t …",
    "  two   spaces\ttab\nline &amp; &lt;b&gt; \u200b zero\u200dwidth",
    "<|endoftext|> and <|startoftext|>",
    "x" * 200,
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clip") / "tokenizer"
    write_clip_tokenizer(made)
    return made


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer(*read_bpe(folder), 75)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """As this environment's backend reads it."""
    if "paddle" in installed_backends():
        from dreamcore.adapters.paddle.models import read_in_paddle

        return read_in_paddle("CLIPTokenizer", folder)
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTokenizerFast.from_pretrained(folder)  # in transformers 5, CLIPTokenizer's other name


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_the_same_everywhere(text: str, ours: Tokenizer, theirs: Any) -> None:
    tokens = ours.tokenize(text)
    assert theirs.tokenize(text) == tokens
    ids = theirs([text], truncation=True, max_length=300)["input_ids"][0]
    assert list(ids) == [SIZE - 2, *(ours.vocabulary[token] for token in tokens), SIZE - 1]


WORDS = st.sampled_from(
    ["photo", "sks", "DOG", "don't", "café", "小狗", "，", "🐕", "f/1.8", "x_y", "“ok”", "№ 5", "--", "Ωmega"]
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(WORDS, st.text(st.characters(max_codepoint=0x24F, categories=("L", "Nd", "P", "Sm")), max_size=6))
    )
)
def test_any_words(ours: Tokenizer, theirs: Any, words: list[str]) -> None:
    assert ours.tokenize(" ".join(words)) == theirs.tokenize(" ".join(words))


def test_rare_words_are_short_late_single_tokens(ours: Tokenizer) -> None:
    found = rare_words(ours, 2000)
    assert found[:5] == [("hta", 49384), ("rcn", 49370), ("waj", 49367), ("adl", 49351), ("omd", 49346)]
    assert len(found) > 1000 and len({word for word, _ in found}) == len(found)
    for word, number in found:
        assert ours.vocabulary[f"{word}</w>"] == number >= SIZE / 2
        assert 1 < len(word) <= LETTERS and ours.tokenize(word) == [f"{word}</w>"]
    assert "waj" not in {word for word, _ in rare_words(ours, 2000, "big waj")}, "the class's own words"


MEANING = """
    on in mug car red the of at my an and not for dog cat cow ewe eel yak yew fez urn koi pew vow oat jug keg sow
    imp orb hex wok tug cog hag fad owl sew bmw kia nba sks uzi afl jpg cpu gpu mri usa uk nyu deb kev tod mao taj rwa
    und les mit der que los gli och jal evs psp gtr csi wii dvd lol omg
"""


def test_no_rare_word_means_something(ours: Tokenizer) -> None:
    """Beside words that come to mind, and T5's vocabulary of English, German, French and Romanian: its pieces come by
    their frequency in texts of the web."""
    found = {word for word, _ in rare_words(ours, 2000)}
    assert found & set(MEANING.split()) == set()
    whole_words = {piece[1:].lower() for piece, _ in pieces()[:10_000] if piece.startswith("\u2581")}
    assert len(whole_words) > 5000 and found & whole_words == set()
    assert {"car", "mug", "on", "in"} <= KNOWN and all(1 < len(word) <= LETTERS for word in KNOWN | NAMES)
    assert not (KNOWN | NAMES) & {"hta", "rcn", "waj", *RARE_WORDS}


def test_what_is_known_of_words(ours: Tokenizer) -> None:
    """`sks` is rare, one token, and a rifle; its usual stand-ins are otherwise: shs is common, zwx no token."""
    assert ours.tokenize("sks") == ["sks</w>"] and ours.vocabulary["sks</w>"] == 48136
    assert known_word(ours, "sks") is None and notable(ours, "sks") == "a rifle"
    assert known_word(ours, "dog") == known_word(ours, "shs") == "a common word"
    assert known_word(ours, "ohwx") is None and notable(ours, "ohwx") is None
    assert ours.tokenize("zwx") == ["z", "wx</w>"] and len(ours.tokenize("小狗")) == 5


def test_the_embedded_models_own_words_are_no_identifiers() -> None:
    """Of its vocabulary only words without meaning are offered, `sks` among them: it has not learned from the web."""
    tokenizer = Tokenizer.open(ModelFolder.open("tinyworld"))
    found = {word for word, _ in rare_words(tokenizer, 100)}
    assert found == {word for word in RARE_WORDS if len(word) <= LETTERS} and "sks" in found
    means = " ".join([*CLASSES, *COLOURS, *PLACES, *TEMPLATES]).replace("{}", "")
    assert not found & set(means.split())
