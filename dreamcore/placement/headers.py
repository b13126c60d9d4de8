"""What a component's files hold, from their headers alone: shapes and types of weights, of which none is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import ConfigError
from ..formats.weights import IGNORED, TIED

TYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number, by safetensors' names of types; eight-bit floats (F8_…) have one."""
LONGEST = 100_000_000
"""Bytes of the longest header that safetensors itself reads."""


@dataclass(frozen=True)
class StoredWeights:
    """A component's weights as its files have them.

    Args:
        shapes: by published name; empty where the files' form tells none before it is read.
        file_bytes: of the files.
        bytes_each: of a number: of the type that most of them have.
        kind: the files' form: safetensors, bin or pdparams.
        guessed: of files that tell no shapes, how many numbers they hold by their size.
    """

    shapes: Mapping[str, tuple[int, ...]]
    file_bytes: int
    bytes_each: int
    kind: str = "safetensors"
    guessed: int = field(default=0)

    @cached_property
    def count(self) -> int:
        """Numbers that a network of them holds."""
        return sum(math.prod(shape) for shape in self.shapes.values()) or self.guessed

    @property
    def basis(self) -> str:
        """Where `count` is from."""
        return "counted" if self.shapes else "by file size"


def stored_weights(files: Sequence[Path]) -> StoredWeights:
    """Of a component's files; only safetensors' have a header, others are judged by their size, as if of float32.

    Raises:
        ConfigError: a damaged header.
    """
    size, kind = sum(file.stat().st_size for file in files), files[0].suffix[1:]
    if kind != "safetensors":
        half = ".fp16." in files[0].name or ".bf16." in files[0].name
        return StoredWeights({}, size, each := 2 if half else 4, kind, size // each)
    shapes, numbers = dict[str, tuple[int, ...]](), dict[int, int]()
    for file in files:
        for name, (shape, each) in _header(file).items():
            if not name.endswith(IGNORED):
                shapes[name] = shape
                numbers[each] = numbers.get(each, 0) + math.prod(shape)
    for name, other in TIED.items():  # a table of two names is held once
        if name in shapes and other in shapes:
            del shapes[name]
    return StoredWeights(shapes, size, max(numbers, key=numbers.__getitem__, default=4))


def _header(file: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and bytes of a number, by name."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= min(LONGEST, file.stat().st_size):
                raise ValueError(f"its header would be {length} bytes long")
            entries = json.loads(opened.read(length))
        weights = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        return {n: (tuple(map(int, e["shape"])), TYPE_BYTES.get(e["dtype"], 1)) for n, e in weights.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: cannot be read as safetensors: {error}") from None
