"""Words in pictures, in a font that has their letters: Pillow's own has ASCII and a few marks."""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
SYSTEM_FONTS = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf"),
    *("wqy-zenhei.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf"),
    *("msyh.ttc", "simhei.ttf", "simsun.ttc"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Light.ttc", "Arial Unicode.ttf"),
    *("DejaVuSans.ttf", "arial.ttf", "Arial.ttf"),
)
"""Fonts with Chinese characters as Linux, Windows and macOS bring them, then some with other letters; Pillow finds them
by these names where the system keeps its fonts."""
MISSING = "\uffff"
"""A letter that no font has: what is drawn in its place is drawn for every letter that is missing."""


def lettering(text: str, size: int) -> tuple[str, Font]:
    """One line of text and a font of `size` pixels that has its letters.

    Where no font of the system has them all, letters lose their accents, and what is missing even so becomes "?".
    """
    line = " ".join(text.split())
    own = _own_font(size)
    for font in (own, *_system_fonts(size)) if _lacks(own, line) else (own,):
        if not _lacks(font, line):
            return line, font
    plain = "".join(c for c in unicodedata.normalize("NFKD", line) if not unicodedata.combining(c))
    lacks = _lacks(own, plain)
    return "".join("?" if c in lacks else c for c in plain), own


def _lacks(font: Font, text: str) -> set[str]:
    """Letters of a text that a font would draw as boxes."""
    box = _drawn(font, MISSING)
    return {c for c in set(text) if c != " " and _drawn(font, c) == box}


@lru_cache(maxsize=1024)
def _drawn(font: Font, letter: str) -> bytes:
    return bytes(font.getmask(letter))


@cache
def _own_font(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _system_fonts(size: int) -> tuple[Font, ...]:
    found: list[Font] = []
    for name in SYSTEM_FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)
