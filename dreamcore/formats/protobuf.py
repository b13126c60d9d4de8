"""Messages of protocol buffers, field by field, without a schema: MindSpore's and SentencePiece's files are such.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Damaged(Exception):
    """What is wrong with a file's bytes."""


def read_varint(content: bytes | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise Damaged("it ends in the middle of a number")
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
    raise Damaged("a number of more than ten bytes")


def message_fields(content: bytes | mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: number, and where the value's bytes begin and end."""
    while at < end:
        key, at = read_varint(content, at, end)
        start, wire = at, key & 7
        if wire == _VARINT:
            _, at = read_varint(content, at, end)
        elif wire == _BYTES:
            length, start = read_varint(content, at, end)
            at = start + length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise Damaged(f"a field of kind {wire}, which there is none of")
        if at > end:
            raise Damaged(f"it says that {at - start} bytes follow, where there are {end - start}")
        yield key >> 3, start, at
