"""A model's tokenizer, read from its folder: enough to count and look up tokens without any framework.

CLIP's stands here: byte-pair encoding (arXiv 1508.07909), in lower case, words by a pattern, every word from its bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..models.fields import read_json
from ..models.folder import ModelFolder
from . import wordpiece
from .wordpiece import WordPiece

END = "</w>"
VOCABULARY, MERGES, ONE_FILE = "vocab.json", "merges.txt", "tokenizer.json"
"""CLIP's two files, and the one that transformers 5 writes in place of them."""
BERT, CLIP = "BertTokenizer", "CLIPTokenizer"
_MARKS = re.compile(r"(<\|(?:startoftext|endoftext)\|>)")
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


class Tokenizer:
    """CLIP's tokenizer without its begin and end marks.

    Args:
        vocabulary: token -> number; merges come earlier the more frequent their pair was.
        merges: pairs of tokens that are joined, the first of them first.
        window: tokens of a prompt that the text encoder sees.
    """

    unknown = None
    """What stands for a word that cannot be spelt: bytes spell everything."""

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], window: int):
        self.vocabulary, self.window = dict(vocabulary), window
        self._rank = {pair: rank for rank, pair in enumerate(merges)}

    @classmethod
    def open(cls, model: ModelFolder) -> Tokenizer | WordPiece:
        """A model folder's first tokenizer, of the class that the folder names.

        Raises:
            ConfigError: its files are missing or damaged, or it is neither CLIP's nor BERT's.
        """
        encoder = model.family.text_encoders[0]
        if (tokenizer := cls.known(model)) is None:
            raise ConfigError(
                f"pretrained_model_name_or_path: {model.folder(encoder.tokenizer)}: a "
                f"{model.class_name(encoder.tokenizer)}, whose numbers do not say which words are rare; take a model "
                "with CLIP's tokenizer"
            )
        return tokenizer

    @classmethod
    def known(cls, model: ModelFolder) -> Tokenizer | WordPiece | None:
        """As `open`; None where it is another's, such as T5's or a language model's."""
        encoder = model.family.text_encoders[0]
        folder, window = model.folder(encoder.tokenizer), model.window(encoder) - 2
        return read_tokenizer(model.class_name(encoder.tokenizer), folder, window)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a prompt; the last of each word ends in `</w>`."""
        found: list[str] = []
        for number, part in enumerate(_MARKS.split(text)):
            if number % 2:
                found.append(part)
                continue
            plain = re.sub(r"\s+", " ", unicodedata.normalize("NFC", part)).strip()
            for word in _WORD.findall("".join(letter.lower() for letter in plain)):  # each by itself, as for Greek's σ
                found += self._joined([byte_letters()[b] for b in word.encode("utf-8")])
        return found

    def word(self, token: str) -> str | None:
        """The word that a token is the whole of."""
        return token.removesuffix(END) if token.endswith(END) else None

    def rarity(self, token: str) -> float:
        """Share of the vocabulary that is more frequent, from 0 to 1."""
        return self.vocabulary.get(token, 0) / len(self.vocabulary)

    def _joined(self, parts: list[str]) -> list[str]:
        parts = [*parts[:-1], parts[-1] + END]
        while len(parts) > 1:
            rank, at = min((self._rank.get(pair, 10**9), i) for i, pair in enumerate(pairwise(parts)))
            if rank == 10**9:
                break
            pair = parts[at], parts[at + 1]
            joined, i = [], 0
            while i < len(parts):
                both = tuple(parts[i : i + 2]) == pair
                joined.append("".join(pair) if both else parts[i])
                i += 2 if both else 1
            parts = joined
        return parts


def read_tokenizer(class_name: str, folder: Path, window: int = 0) -> Tokenizer | WordPiece | None:
    """The tokenizer in a folder, of a class of transformers'; None for others than CLIP's and BERT's.

    Raises:
        ConfigError: as `read_bpe`.
    """
    kind = class_name.removesuffix("Fast")
    if kind == BERT:
        return WordPiece.read(folder, window)
    return Tokenizer(*read_bpe(folder), window) if kind == CLIP else None


def read_bpe(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges in a tokenizer's folder, whichever library wrote it.

    Raises:
        ConfigError: its files are missing or damaged, or hold another kind of tokenizer.
    """
    in_one = _is_in_one(folder)
    file = folder / (ONE_FILE if in_one else VOCABULARY)
    try:
        if in_one:
            model = read_json(file)["model"]
            vocabulary, merges = model["vocab"], model["merges"]
        else:
            vocabulary, file = read_json(file), folder / MERGES
            lines = file.read_text(encoding="utf-8").split("\n")
            merges = [line for line in lines if len(line.split()) == 2 and not line.startswith("#version")]
        return {str(token): int(number) for token, number in vocabulary.items()}, [_pair(merge) for merge in merges]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"{error} is missing" if isinstance(error, LookupError) else error
        raise ConfigError(f"pretrained_model_name_or_path: {file}: no CLIP tokenizer there: {why}") from None


@contextmanager
def with_old_files(folder: Path) -> Iterator[Path]:
    """A tokenizer's folder for libraries that know only CLIP's two files, or BERT's one; a temporary one where it lacks
    them.

    Raises:
        ConfigError: as `read_bpe`.
    """
    model = read_json(folder / ONE_FILE).get("model") if _is_in_one(folder) else None
    old: dict[str, str] = {}
    if isinstance(model, dict) and model.get("end_of_word_suffix") == END:
        vocabulary, merges = read_bpe(folder)
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        old = {VOCABULARY: json.dumps(vocabulary), MERGES: "\n".join(lines) + "\n"}
    elif isinstance(model, dict) and model.get("type") == "WordPiece":
        pieces = wordpiece.read_vocabulary(folder)
        old = {wordpiece.VOCABULARY: "\n".join(sorted(pieces, key=pieces.__getitem__)) + "\n"}
    if not old:  # T5's is no file of text, and language models' libraries know the new one
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(shutil.copytree(folder, temporary, dirs_exist_ok=True))
        for name, text in old.items():
            (made / name).write_text(text, encoding="utf-8")
        (made / ONE_FILE).unlink()  # lest a library takes what it holds besides
        yield made


def _is_in_one(folder: Path) -> bool:
    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    return ONE_FILE in there and not {VOCABULARY, MERGES} <= there and wordpiece.VOCABULARY not in there


def _pair(merge: Any) -> tuple[str, str]:
    """Of "a b" or ["a", "b"]: `tokenizers` has written both."""
    first, second = merge.split() if isinstance(merge, str) else merge
    return str(first), str(second)


@lru_cache
def byte_letters() -> tuple[str, ...]:
    """The printable letter that stands for each byte (GPT-2's)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return tuple(chr(b) if b in printable else chr(next(others)) for b in range(256))
