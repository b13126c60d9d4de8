"""Numbers of configuration files, with the text that they were written as.

`identifier: 010` means the word 010, as `--identifier 010` does; `seed: 010` means ten.
"""

from __future__ import annotations

from typing import Self


class WrittenInt(int):
    """A whole number."""

    text: str

    def __new__(cls, text: str, value: int | None = None) -> Self:
        number = super().__new__(cls, text if value is None else value)
        number.text = text
        return number


class WrittenFloat(float):
    """Any other number."""

    text: str

    def __new__(cls, text: str, value: float | None = None) -> Self:
        number = super().__new__(cls, text if value is None else value)
        number.text = text
        return number
