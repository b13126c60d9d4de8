"""Text that people wrote: read as UTF-8, and named as what it is where it is another encoding's."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
"""First and last of the Chinese characters, kana and hangul not among them."""
SHOWN = 12
"""Letters of a text that a message shows."""


class NotUTF8(ValueError):
    """A file's text is in no UTF-8; its message goes after the file's name."""


def read_text(file: Path) -> str:
    """A file's text, without a byte order mark (Windows' editors begin a file with one).

    Raises:
        NotUTF8: saying what it is.
        OSError: it cannot be read.
    """
    return text_of(file.read_bytes())


def text_of(content: bytes) -> str:
    """`read_text` of a file's contents."""
    try:
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        what = _encoding(content) or f"no text in UTF-8 ({error.reason} at byte {error.start})"
        raise NotUTF8(f"is {what}; save it as UTF-8") from None


def is_chinese(letter: str) -> bool:
    """Whether a letter is a Chinese character."""
    return any(first <= ord(letter) <= last for first, last in CHINESE)


def _encoding(content: bytes) -> str | None:
    """What a text's encoding seems to be, in words: UTF-16 as Windows writes it, or GB18030 (GBK, GB2312)."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "text in UTF-16"
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return None
    wide = [letter for letter in text if not letter.isascii()]
    common = [letter for letter in wide if is_chinese(letter) and letter.encode("gb2312", "ignore")]
    if any(letter < " " and letter not in "\t\r\n" for letter in text) or 2 * len(common) < len(wide):
        return None  # accented letters of Latin-1 come out as rare characters
    return f"text in GB18030, as it seems (it reads {' '.join(text.split())[:SHOWN]!r})"
