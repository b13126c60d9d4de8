"""How much is said in the terminal; a run's log keeps everything in any case, and no run is another one for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

from ..errors import ConfigError
from .base import Level

Verbosity = Literal["quiet", "normal", "verbose"]
SAID: dict[Verbosity, frozenset[Level]] = {
    "quiet": frozenset(("result",)),
    "normal": frozenset(("result", "warning", "info")),
    "verbose": frozenset(get_args(Level)),
}
"""What is said at each; progress, but when quiet."""
_verbosity: ContextVar[Verbosity] = ContextVar("verbosity", default="normal")


@contextmanager
def verbosity(level: Verbosity) -> Iterator[None]:
    """Say, within, errors and results only (quiet), or also why, how long and how much memory (verbose).

    Raises:
        ConfigError: no such level.
    """
    if level not in SAID:
        raise ConfigError(f"verbosity: {level!r} is not one of {', '.join(SAID)}")
    token = _verbosity.set(level)
    try:
        yield
    finally:
        _verbosity.reset(token)


def current() -> Verbosity:
    """How much is said here."""
    return _verbosity.get()
