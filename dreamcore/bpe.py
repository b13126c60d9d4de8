"""CLIP's tokenizer, read from a model folder: enough to count and look up tokens without any framework.

Byte-pair encoding (arXiv 1508.07909) as CLIP does it: lower case, words by a pattern, every word from its bytes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from .errors import ConfigError
from .modelfolder import ModelFolder

END = "</w>"
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
        folder = model.folder(model.family.text_encoders[0].tokenizer)
        try:
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"pretrained_model_name_or_path: {folder}: no CLIP tokenizer there: {error}") from None
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        window = int(min(settings.get("model_max_length", 77), 10**6)) - 2
        return cls(vocabulary, [(pair[0], pair[1]) for pair in merges if len(pair) == 2], window)

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


@lru_cache
def byte_letters() -> tuple[str, ...]:
    """The printable letter that stands for each byte (GPT-2's)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return tuple(chr(b) if b in printable else chr(next(others)) for b in range(256))
