"""CLIP's tokenizer as a folder of files, made from the vocabulary that OpenAI published and this package carries.

Every Stable Diffusion 1 and 2 has this tokenizer; files that hold weights alone leave it out.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

PAIRS = Path(__file__).with_name("clip_bpe") / "bpe_simple_vocab_16e6.txt.gz"
"""Pairs of tokens to join, a line each after the first; its source and licence lie beside it."""
SIZE = 49_408
"""Tokens of the vocabulary."""
START, END = "<|startoftext|>", "<|endoftext|>"
WINDOW = 77
"""Tokens of a prompt, both marks among them."""


@cache
def merges() -> tuple[str, ...]:
    """The pairs that CLIP joins, "a b" each, the first of them first."""
    lines = gzip.decompress(PAIRS.read_bytes()).decode("utf-8").split("\n")
    return tuple(lines[1 : 1 + SIZE - 2 * 256 - 2])


def vocabulary() -> dict[str, int]:
    """Token -> number: bytes, bytes that end a word, joined pairs, the two marks."""
    letters = _letters()
    joined = ("".join(pair.split()) for pair in merges())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *joined, START, END]
    return {token: number for number, token in enumerate(tokens)}


def write_clip_tokenizer(folder: Path, pad: str = END) -> None:
    """Write the tokenizer into a new folder, as transformers loads it.

    Args:
        pad: what fills up short prompts: the end mark in SD 1, "!" in SD 2.
    """
    folder.mkdir()
    special = {"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": WINDOW, "do_lower_case": True}
    _write(folder / "vocab.json", vocabulary())
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges()]) + "\n", encoding="utf-8")
    _write(folder / "special_tokens_map.json", special)
    _write(folder / "tokenizer_config.json", {**settings, "add_prefix_space": False, "errors": "replace"} | special)


def _write(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")


def _letters() -> list[str]:
    """The printable letter of each byte, those first that are printable themselves (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
