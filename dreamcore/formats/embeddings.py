"""Files of learned embeddings: of all text encoders in one (NAME_emb.safetensors, as diffusers' advanced scripts write
it), and of the only text encoder, one word a file (learned_embeds.safetensors, as its textual inversion does)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .weights import Arrays, read_metadata, read_safetensors, write_safetensors

WORDS = "words"
"""The entry of the header that says which word is spelt with which tokens, as JSON."""


@dataclass(frozen=True)
class Embeddings:
    """What such a file holds.

    Args:
        words: word -> the tokens that it is spelt with.
        rows: text encoder, as other programs call it (clip_l, clip_g, t5) -> [tokens, width], in the words' order.
    """

    words: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, NDArray[np.float32]]

    def save(self, file: Path) -> None:
        """Write them all."""
        said = json.dumps({word: list(tokens) for word, tokens in self.words.items()}, ensure_ascii=False)
        write_safetensors(file, dict(self.rows), {WORDS: said})

    def save_apart(self, folder: Path, first: str) -> list[Path]:
        """Write each word of the only text encoder by itself, under the word: the first as `first`, others as
        WORD.safetensors; returns the files."""
        (rows,) = self.rows.values()
        files, begin = list[Path](), 0
        for word, tokens in self.words.items():
            files.append(folder / (f"{word}.safetensors" if files else first))
            write_safetensors(files[-1], {word: rows[begin : begin + len(tokens)]}, {})
            begin += len(tokens)
        return files

    @classmethod
    def read(cls, file: Path, only: str = "") -> Embeddings:
        """From a file of either kind, of ours or another's.

        Args:
            only: what other programs call the model's first text encoder, for a file that does not say whose it is.

        Raises:
            ConfigError: it is damaged, or holds something else.
        """
        arrays = read_safetensors(file)
        odd = [name for name, rows in arrays.items() if rows.ndim not in (1, 2)]
        if odd or not arrays:
            raise ConfigError(f"embeddings: {file}: {', '.join(odd[:3]) or 'nothing'}: no embeddings of tokens")
        rows: Arrays = {name: array.reshape(-1, array.shape[-1]) for name, array in arrays.items()}
        if len(rows) == 1 and not {*rows} <= {"clip_l", "clip_g", "t5", only}:  # a word, and not an encoder
            (word, array), *_ = rows.items()
            return cls({word: tuple(f"<{word.strip('<>')}-{k}>" for k in range(len(array)))}, {only: array})
        counts = {len(array) for array in rows.values()}
        count = max(counts)
        said = read_metadata(file).get(WORDS)
        words = {w: tuple(t) for w, t in json.loads(said).items()} if said else {}
        words = words or {token: (token,) for token in (f"<s{k}>" for k in range(count))}
        if len(counts) > 1 or sum(map(len, words.values())) != count:
            raise ConfigError(f"embeddings: {file}: of its text encoders' embeddings some have other numbers of tokens")
        return cls(words, rows)
