"""Files of tensors that a thread writes later, from copies of the numbers: whoever trains goes on meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_taking: ContextVar[Later | None] = ContextVar("taking", default=None)


class Later:
    """Files that are to be written.

    Args:
        limit: bytes of memory that they may take; what goes beyond is written at once.
        copies: whether arrays must be copied, as they may be the memory of weights.
    """

    def __init__(self, limit: float, *, copies: bool = True):
        self.copies, self._limit = copies, limit
        self.bytes = 0
        """That are taken."""
        self.sha256 = dict[Path, str]()
        """Of the files that were taken and are written, in hexadecimal."""
        self._files: list[tuple[Path, Callable[[Any], None]]] = []

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Take the files that are written within, by this thread."""
        token = _taking.set(self)
        try:
            yield
        finally:
            _taking.reset(token)

    @property
    def files(self) -> list[Path]:
        """Those that are still to be written."""
        return [file for file, _ in self._files]

    def has_room(self, size: int) -> bool:
        """Whether a file of so many bytes is taken."""
        return self.bytes + size <= self._limit

    def add(self, file: Path, size: int, write: Callable[[Any], None]) -> None:
        """Take a file.

        Args:
            write: writes it, and updates a hash with what it has written.
        """
        self.bytes += size
        self._files.append((file, write))

    def write(self) -> None:
        """Write the files, one after the other; after a failure it goes on with the one that failed."""
        while self._files:
            file, write = self._files[0]
            digest = hashlib.sha256()
            write(digest)
            self.sha256[file] = digest.hexdigest()
            del self._files[0]


def taking() -> Later | None:
    """What takes the files that are written now."""
    return _taking.get()
