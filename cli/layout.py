"""Text as wide as the terminal, but not so wide that it cannot be read."""

from __future__ import annotations

import shutil
import textwrap

WIDEST = 100


def width() -> int:
    """Characters of a line."""
    return min(shutil.get_terminal_size().columns - 1, WIDEST)


def wrapped(text: str, indent: int = 0, more: int | None = None, first: str = "") -> list[str]:
    """Lines of that width.

    Args:
        indent: of the first one.
        more: of those after it; the same without.
        first: what stands in the first one's indent.
    """
    return textwrap.wrap(
        " ".join(text.split()) if indent else text,
        width(),
        initial_indent=first.ljust(indent),
        subsequent_indent=" " * (indent if more is None else more),
        break_long_words=False,
        break_on_hyphens=False,
    )
