"""Tensors taken together: what costs the same small time for each, such as a message, is paid once for many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
BUCKET_BYTES = 64 * 2**20
"""What a bucket takes beside the tensors themselves."""

IN_FLIGHT = 256 * 2**20
"""Bytes that are on their way from a device to the host at most: what makes more waits."""


def in_buckets(tensors: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Tensors, in order, by buckets that reach `limit` with their last one.

    >>> list(in_buckets("abcdefg", lambda letter: 1, 3))
    [['a', 'b', 'c'], ['d', 'e', 'f'], ['g']]
    """
    bucket: list[T] = []
    filled = 0
    for tensor in tensors:
        bucket.append(tensor)
        filled += size(tensor)
        if filled >= limit:
            yield bucket
            bucket, filled = [], 0
    if bucket:
        yield bucket
