"""CLIP's tokenizer, read from a model folder: enough to count and look up tokens without any framework.

Byte-pair encoding (arXiv 1508.07909) as CLIP does it: lower case, words by a pattern, every word from its bytes.
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

END = "</w>"
VOCABULARY, MERGES, ONE_FILE = "vocab.json", "merges.txt", "tokenizer.json"
"""CLIP's two files, and the one that transformers 5 writes in place of them."""
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


class Tokenizer:
    """CLIP's tokenizer without its begin and end marks.

    Args:
        vocabulary: token -> number; merges come earlier the more frequent their pair was.
        merges: pairs of tokens that are joined, the first of them first.
        window: tokens of a prompt that the text encoder sees.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], window: int):
        self.vocabulary, self.window = dict(vocabulary), window
        self._rank = {pair: rank for rank, pair in enumerate(merges)}

    @classmethod
    def open(cls, model: ModelFolder) -> Tokenizer:
        """A model folder's first tokenizer.

        Raises:
            ConfigError: its files are missing or damaged.
        """
        encoder = model.family.text_encoders[0]
        return cls(*read_bpe(model.folder(encoder.tokenizer)), model.window(encoder) - 2)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a prompt; the last of each word ends in `</w>`."""
        text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip().lower()
        letters = byte_letters()
        return [
            token for word in _WORD.findall(text) for token in self._joined([letters[b] for b in word.encode("utf-8")])
        ]

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
    """A tokenizer's folder for libraries that know CLIP's two files alone; a temporary one where it lacks them.

    Raises:
        ConfigError: as `read_bpe`.
    """
    model = read_json(folder / ONE_FILE).get("model") if _is_in_one(folder) else None
    if not (isinstance(model, dict) and "merges" in model):  # T5's is no such pair of files
        yield folder
        return
    vocabulary, merges = read_bpe(folder)
    with tempfile.TemporaryDirectory() as name:
        made = Path(shutil.copytree(folder, name, dirs_exist_ok=True))
        (made / VOCABULARY).write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (made / MERGES).write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield made


def _is_in_one(folder: Path) -> bool:
    return (folder / ONE_FILE).is_file() and not ((folder / VOCABULARY).is_file() and (folder / MERGES).is_file())


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
