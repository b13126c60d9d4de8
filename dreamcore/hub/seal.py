"""A mark at the end of a card by which it is known whether somebody has edited it since: then it is theirs."""

from __future__ import annotations

import hashlib
from pathlib import Path

_MARK = "\n<!-- written by dreambooth, and left as it is once it is edited: "


def sealed(text: str) -> str:
    """A card's text with its mark."""
    return f"{text}{_MARK}{hashlib.sha256(text.encode()).hexdigest()[:16]} -->\n"


def is_card(file: Path) -> bool:
    """Whether a file is a card that was written here, edited or not."""
    return _MARK in _read(file)


def is_untouched(file: Path) -> bool:
    """Whether a file is a card just as it was written."""
    text = _read(file)
    return _MARK in text and sealed(text.rpartition(_MARK)[0]) == text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
