"""Rare words of a vocabulary, to name a subject by, as in DreamBooth (arXiv 2208.12242), section 3.2."""

from __future__ import annotations

from .known_words import NAMES, WORDS
from .tokenizer import Tokenizer
from .wordpiece import WordPiece

AnyTokenizer = Tokenizer | WordPiece

LETTERS = 3
"""At most, as in the paper."""
COMMON = 0.5
"""Share of the vocabulary, by frequency, whose whole-word tokens count as known words."""
NOTABLE = {
    "sks": "a rifle",
    "ak": "a rifle",
    "uzi": "a gun",
    "bmw": "a make of cars",
    "kia": "a make of cars",
    "gmc": "a make of cars",
    "ibm": "a company",
    "usb": "a plug",
    "dna": "a molecule",
    "ufo": "a flying saucer",
    "nba": "a sports league",
    "nfl": "a sports league",
    "wwe": "wrestling",
}
"""Rare words of which models have images all the same, where they have learned from the web."""
WEB = 20_000
"""Tokens of a vocabulary from which on a model is taken to have; CLIP's has 49,408, BERT's Chinese one 21,128, a
miniature's some hundreds."""
CUSTOMARY = ("sks",)
"""Those of them that the field uses as identifiers all the same, with success."""


def rare_words(tokenizer: AnyTokenizer, count: int, class_word: str | None = None) -> list[tuple[str, int]]:
    """(word, token's number) of the rarest short words of one token each, the rarest first.

    None of them is in the common half of the vocabulary, a word of a language or a name (known_words.py), part of
    `class_word`, or one of which the web has images, `CUSTOMARY` ones where the model has not learned from it excepted.
    """
    means = WORDS | NAMES | NOTABLE.keys() | set((class_word or "").lower().split())
    means -= {word for word in CUSTOMARY if notable(tokenizer, word) is None}
    found = []
    for token, number in sorted(tokenizer.vocabulary.items(), key=lambda item: -item[1]):
        word = tokenizer.word(token) or ""
        fits = 1 < len(word) <= LETTERS and word.isascii() and word.isalpha()
        rare = tokenizer.rarity(token) >= COMMON and word not in means
        if fits and rare and tokenizer.tokenize(word) == [token]:
            found.append((word, number))
    return found[:count]


def known_word(tokenizer: AnyTokenizer, word: str) -> str | None:
    """That a word is common to the model, in words; None where it is rare, or no single token."""
    tokens = tokenizer.tokenize(word)
    if len(tokens) == 1 and (tokenizer.rarity(tokens[0]) < COMMON or word.lower() in WORDS):
        return "a common word"
    return None


def notable(tokenizer: AnyTokenizer, word: str) -> str | None:
    """What a rare word means to a model that has learned from the web, in words."""
    return NOTABLE.get(word.lower()) if len(tokenizer.vocabulary) >= WEB else None
