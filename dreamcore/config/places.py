"""Places in prompts for the identifier, the class word and the caption."""

from __future__ import annotations

import re

PLACE = re.compile(r"\{(identifier|class|caption)\}")
BRACES = re.compile(r"\{[^{}]*\}")


def place_in(setting: str, text: str | None) -> str | None:
    """What is wrong with words that are taken as they are and hold a place: the setting and the place; else None."""
    if found := PLACE.search(text or ""):
        return (
            f"{setting}: {found[0]} in {text!r} would not be filled in, as it is in instance prompts, captions and "
            "their template; write the word itself"
        )
    return None
