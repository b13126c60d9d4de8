"""`dreambooth identifiers`: rare words to name a subject by, as a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import dreamcore
from dreamcore.config import load_config
from dreamcore.config.identifiers import IdentifiersConfig

from .flags import parse_settings


def run(about: str, argv: Sequence[str]) -> int:
    """Print the words; 1 where the vocabulary has none that is rare, short and one token."""
    words = [word for word in argv if word != "--json"]
    given = parse_settings(IdentifiersConfig, "identifiers", about, words, "[--json] ")
    found = dreamcore.identifiers(load_config(IdentifiersConfig, *given))
    if "--json" in argv:
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif found:
        print("word  token   prior of its own (0: none)")
        print(*(f"{one.word:<5} {one.number:<7} {one.distance:.4f}" for one in found), sep="\n")
    else:
        print("no token of this vocabulary is rare, short and a word of its own")
    return 0 if found else 1
