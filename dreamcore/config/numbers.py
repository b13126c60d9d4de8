"""Numbers of configuration files, with the text that they were written as.

`identifier: 010` means the word 010, as `--identifier 010` does; `seed: 010` means ten.
"""

from __future__ import annotations

from typing import Any, Self


class _Written:
    """What both kinds share."""

    text: str

    def __new__(cls, text: str, value: Any = None) -> Self:
        number = super().__new__(cls, text if value is None else value)  # type: ignore[call-arg]
        number.text = text
        return number

    def __deepcopy__(self, memo: object) -> Self:
        return self


class WrittenInt(_Written, int):
    """A whole number."""


class WrittenFloat(_Written, float):
    """Any other number."""
