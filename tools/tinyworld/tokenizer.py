"""Write tinyworld's tokenizer: CLIP's byte-level BPE, with merges that keep every caption word and rare word whole."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from dreamcore.tinyworld.vocabulary import CLASSES, COLOURS, PATTERNS, PLACES, RARE_WORDS, TEMPLATES

WINDOW = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def words() -> list[str]:
    """All words of captions and templates, then the rare ones; each once."""
    phrases = [*TEMPLATES, "a an the my with", *CLASSES, *COLOURS, *PATTERNS[1:], *PLACES, *RARE_WORDS]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.replace("{}", "").split()))


def alphabet() -> list[str]:
    """A printable letter for each byte (GPT-2's `bytes_to_unicode`), in CLIP's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def merged(parts: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding: the earliest merge that applies, again and again."""
    rank = {pair: i for i, pair in enumerate(merges)}
    while pairs := [pair for pair in pairwise(parts) if pair in rank]:
        best = min(pairs, key=rank.__getitem__)
        out: list[str] = []
        for part in parts:
            if out and (out[-1], part) == best:
                out[-1] += part
            else:
                out.append(part)
        parts = out
    return parts


def learn_merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Merges that make each word one token.  Later merges rank lower, so they cannot break an earlier word."""
    merges: list[tuple[str, str]] = []
    for word in vocabulary:
        parts = merged([*word[:-1], word[-1] + "</w>"], merges)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = merged(parts, merges)
    return merges


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Write the files that CLIPTokenizer reads; returns the vocabulary."""
    merges = learn_merges(words())
    names = [*alphabet(), *(c + "</w>" for c in alphabet()), *dict.fromkeys(a + b for a, b in merges), START, END]
    vocabulary = {name: i for i, name in enumerate(names)}
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": WINDOW,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("vocab.json", vocabulary),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", settings | special),
    ):
        (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]) + "\n", "utf-8")
    return vocabulary
