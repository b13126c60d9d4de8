"""How far long work has come.  Whoever does the work says so, and knows nothing of whoever shows it.

    with progress("encoding images", len(images)) as step:
        for image in images:
            ...
            step()

Those who show it (`told`) hold for the code that runs within, as a context variable does: nothing is global, and
another thread's work is its own.  Where nobody shows it, a step costs next to nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol, TypeVar

T = TypeVar("T")
Unit = Literal["", "bytes"]


class Work:
    """Something that takes a while; call it after each piece that is done, from any thread."""

    def __init__(self, what: str, total: int | None = None, unit: Unit = "") -> None:
        self.what, self.total, self.unit = what, total, unit
        """What is done, in words; pieces in all, None where nobody knows; what is counted."""
        self.done = 0
        self.began = time.monotonic()
        self.notes: tuple[str, ...] = ()
        """Words besides, the first the most important."""
        self.seconds_left: float | None = None
        """Where that is better known than by the time that was taken so far."""
        self._showers = _showers.get()
        self._lock = threading.Lock()

    def __call__(self, pieces: int = 1) -> None:
        self.reached(self.done, pieces)

    def reached(self, done: int, more: int = 0) -> None:
        """So many pieces are done."""
        if not self._showers:
            return
        with self._lock:
            self.done = self.done + more if more else done
        self._tell("changed")

    @property
    def is_shown(self) -> bool:
        """Whether anybody is told."""
        return bool(self._showers)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float | None:
        """Seconds that are left, if the rest takes as long as what is done; None where that cannot be told."""
        if self.seconds_left is not None or self.total is None or not 0 < self.done <= self.total:
            return self.seconds_left
        return self.seconds / self.done * (self.total - self.done)

    def begin(self) -> None:
        """Tell that it begins."""
        self.began = time.monotonic()
        self._tell("began")

    def end(self, *, failed: bool = False) -> None:
        """Tell that it has ended."""
        self._tell("finished", failed=failed)

    def _tell(self, event: str, **how: bool) -> None:
        """Tell everybody.  Who cannot show it any more (a log on a full disk) does not end the work."""
        for shower in self._showers:
            try:
                getattr(shower, event)(self, **how)
            except Exception:
                self._showers = tuple(other for other in self._showers if other is not shower)


class Shower(Protocol):
    """Somebody who shows work, or keeps account of it.  All of it may come from any thread."""

    def began(self, work: Work) -> None:
        """It begins."""
        ...

    def changed(self, work: Work) -> None:
        """It has come further."""
        ...

    def finished(self, work: Work, *, failed: bool) -> None:
        """It is done, or has failed."""
        ...


_showers: ContextVar[tuple[Shower, ...]] = ContextVar("showers", default=())


@contextmanager
def told(*showers: Shower) -> Iterator[None]:
    """Tell these, beside those that are told already, of all the work within."""
    token = _showers.set((*_showers.get(), *showers))
    try:
        yield
    finally:
        _showers.reset(token)


def showers() -> tuple[Shower, ...]:
    """Those who are told here."""
    return _showers.get()


@contextmanager
def progress(what: str, total: int | None = None, unit: Unit = "") -> Iterator[Work]:
    """Tell of the work within, which calls what it gets after each piece.

    Args:
        what: is done, in words, as in "generating class images".
        total: pieces; None where nobody knows.
        unit: bytes are told in multiples of them.
    """
    work = Work(what, total, unit)
    work.begin()
    try:
        yield work
    except BaseException:
        work.end(failed=True)
        raise
    work.end()


def each(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with progress: an item is done when the next one is asked for.

    Args:
        total: how many; None for that of a list or tuple.
    """
    count = len(items) if total is None and isinstance(items, list | tuple) else total
    with progress(what, count) as step:
        for item in items:
            yield item
            step()
