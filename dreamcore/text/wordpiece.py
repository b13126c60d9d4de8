"""BERT's tokenizer, read from a model folder: enough to count and look up tokens without any framework.

WordPiece (arXiv 1609.08144, section 4.1) as BERT does it (arXiv 1810.04805): words are parted at white space, at
punctuation and around every Chinese character, and each is spelt by the longest pieces that the vocabulary has, from
its left end; pieces within a word begin with `##`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..io.text import is_chinese
from ..models.fields import read_json

VOCABULARY, ONE_FILE, SETTINGS = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
WITHIN = "##"
UNKNOWN = "[UNK]"
LONGEST = 100
"""Letters of a word; a longer one is unknown."""


@dataclass(frozen=True)
class Spelling:
    """What is made of letters before they are looked up."""

    lower: bool = True
    accents: bool | None = None
    """Whether they are taken off; None: where letters are made small."""
    chinese: bool = True
    """Whether Chinese characters are words of their own."""

    def words(self, text: str) -> list[str]:
        """A prompt's words and marks of punctuation."""
        text = "".join(" " if c in "\t\n\r" or c.isspace() else c for c in text if not _is_control(c))
        if self.chinese:
            text = "".join(f" {c} " if is_chinese(c) else c for c in text)
        if self.lower if self.accents is None else self.accents:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        if self.lower:
            text = "".join(c.lower() for c in text)
        return "".join(f" {c} " if _is_punctuation(c) else c for c in text).split()


class WordPiece:
    """BERT's tokenizer without its begin and end marks.

    Args:
        vocabulary: piece -> number.
        window: tokens of a prompt that the text encoder sees.
        marks: pieces that are no words, and that a prompt may spell out.
    """

    unknown = UNKNOWN
    """What stands for a word that the vocabulary cannot spell."""

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        window: int,
        spelling: Spelling | None = None,
        marks: tuple[str, ...] = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"),
    ):
        self.vocabulary, self.window = dict(vocabulary), window
        self._spelling = spelling or Spelling()
        self._marks = re.compile(f"({'|'.join(map(re.escape, marks))})")
        words = sorted((t for t in self.vocabulary if t.isascii() and t.isalpha()), key=self.vocabulary.__getitem__)
        self._place = {word: place / len(words) for place, word in enumerate(words)}

    @classmethod
    def read(cls, folder: Path, window: int) -> WordPiece:
        """The tokenizer in a folder, whichever library wrote it.

        Raises:
            ConfigError: its files are missing or damaged, or hold another kind of tokenizer.
        """
        settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
        accents = settings.get("strip_accents")
        spelling = Spelling(
            bool(settings.get("do_lower_case", True)),
            None if accents is None else bool(accents),
            bool(settings.get("tokenize_chinese_chars", True)),
        )
        return cls(read_vocabulary(folder), window, spelling)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a prompt."""
        found: list[str] = []
        for number, part in enumerate(self._marks.split(text)):
            if number % 2:
                found.append(part)
            else:
                found += [piece for word in self._spelling.words(part) for piece in self._pieces(word)]
        return found

    def word(self, token: str) -> str | None:
        """The word that a token is the whole of."""
        return None if token.startswith(WITHIN) or self._marks.fullmatch(token) else token

    def rarity(self, token: str) -> float:
        """Share of the words that are more frequent, from 0 to 1; BERT's vocabularies have Latin words in that order,
        and Chinese characters in another, of which the answer is 0."""
        return self._place.get(token, 0.0)

    def _pieces(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word) <= LONGEST:
            before = WITHIN if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if before + word[start:end] in self.vocabulary), None)
            if end is None:
                break
            pieces.append(before + word[start:end])
            start = end
        return pieces if start == len(word) else [UNKNOWN]


def read_vocabulary(folder: Path) -> dict[str, int]:
    """The pieces in a tokenizer's folder, by number.

    Raises:
        ConfigError: as `WordPiece.read`.
    """
    file = folder / VOCABULARY
    try:
        if file.is_file() or not (folder / ONE_FILE).is_file():
            lines = file.read_text(encoding="utf-8").split("\n")
            vocabulary = {line: number for number, line in enumerate(lines[:-1] if not lines[-1] else lines)}
        else:
            file = folder / ONE_FILE
            model = read_json(file)["model"]
            vocabulary = {str(piece): int(number) for piece, number in model["vocab"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"{error} is missing" if isinstance(error, LookupError) else error
        raise ConfigError(f"pretrained_model_name_or_path: {file}: no BERT tokenizer there: {why}") from None
    if UNKNOWN not in vocabulary:
        raise ConfigError(f"pretrained_model_name_or_path: {file}: no BERT tokenizer there: it has no {UNKNOWN}")
    return vocabulary


def _is_control(letter: str) -> bool:
    return letter not in "\t\n\r" and (unicodedata.category(letter)[0] == "C" or letter == "\ufffd")


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter)[0] == "P"
