"""The size of a JPEG XL image from its header (ISO/IEC 18181-1 and -2): its plug-in decodes every pixel to say it."""

from __future__ import annotations

from typing import BinaryIO

_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
"""Width to height, where the header says no more (18181-1, SizeHeader)."""
_SIDE_BITS = (9, 13, 18, 30)
_HEADER = 16
"""Bytes that are enough for a size."""


def size_of(file: BinaryIO) -> tuple[int, int] | None:
    """(W, H) as stored, before any turning; None where the file is damaged.  Leaves the file at its beginning."""
    try:
        head = _codestream(file)
    finally:
        file.seek(0)
    return _size(_Bits(head[2:])) if head.startswith(b"\xff\x0a") and len(head) == _HEADER else None


def _codestream(file: BinaryIO) -> bytes:
    """The beginning of the codestream, which may lie in a box `jxlc` or `jxlp` (18181-2, 4)."""
    file.seek(0)
    head = file.read(_HEADER)
    place = 0
    while not head.startswith(b"\xff\x0a"):
        file.seek(place)
        box = file.read(16)
        size, kind = int.from_bytes(box[:4], "big"), box[4:8]
        start = 8
        if size == 1:
            size, start = int.from_bytes(box[8:16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            file.seek(place + start + (4 if kind == b"jxlp" else 0))  # a part's number stands before it
            return file.read(_HEADER)
        if size < 8 or len(box) < 8:
            return b""
        place += size
    return head


class _Bits:
    """Numbers of a few bits each, the lowest first."""

    def __init__(self, data: bytes):
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.take(_SIDE_BITS[bits.take(2)]) + 1

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    wide, high = _RATIOS[ratio]
    return height * wide // high, height
