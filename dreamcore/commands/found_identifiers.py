"""What `identifiers` has found, kept once a model: a second search loads no model.

What is kept only saves time: where it cannot be read, written or believed, the model is asked again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config.identifiers import IdentifiersConfig
from ..io.files import write_atomically
from ..io.hashing import own_cache, remembered_sha256
from ..models.folder import ModelFolder

FORMAT = 1
"""Of what is kept; another one means that distances are measured in another way."""


class Kept:
    """The distances of some words, in a file named by all that they depend on, which is in XDG_CACHE_HOME or ~/.cache,
    /dreambooth/identifiers.

    Backends and devices are not among that: their answers differ by less than what makes a difference here.
    """

    def __init__(self, config: IdentifiersConfig, model: ModelFolder, words: Sequence[str]):
        self._words = list(words)
        said = [FORMAT, config.class_word, config.mixed_precision, self._words, _encoder(model)]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        self._file = own_cache("identifiers") / f"{digest[:40]}.json"

    def read(self) -> list[float] | None:
        """One distance for each word; None where none are kept."""
        try:
            said = json.loads(self._file.read_bytes())
            distances = [float(distance) for distance in said["distances"]]
            whole = said["words"] == self._words and _usable(distances, len(self._words))
        except (OSError, ValueError, TypeError, LookupError):
            return None
        return distances if whole else None

    def write(self, distances: Sequence[float]) -> None:
        """Keep them, if that is possible."""
        if _usable(distances, len(self._words)):
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._file, json.dumps({"words": self._words, "distances": list(distances)}))


def _usable(distances: Sequence[float], count: int) -> bool:
    return len(distances) == count and all(math.isfinite(distance) for distance in distances)


def _encoder(model: ModelFolder) -> list[Any]:
    """What the first text encoder's answers depend on: its configuration, weights and tokenizer, these by content."""
    encoder = model.text_encoders[0]
    tokenizer = model.folder(encoder.tokenizer)
    files: list[Path] = [*model.weight_files(encoder.network), *(f for f in tokenizer.iterdir() if f.is_file())]
    return [model.config(encoder.network), sorted([file.name, remembered_sha256(file)] for file in files)]
