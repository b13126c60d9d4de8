"""One command of the command line, and what is completed behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Takes = Literal["nothing", "text", "words", "folder", "path"]


@dataclass(frozen=True)
class Command:
    """A line of the table of commands."""

    about: str
    run: Callable[[str, Sequence[str]], int]
    settings: str = ""
    """The class of its settings, where it takes any, as `module:Class`: imported only where it is asked for."""


class Flag(NamedTuple):
    """What may stand on a command line, and what follows it."""

    name: str
    """Without its hyphens."""
    takes: Takes
    words: tuple[str, ...] = ()
    """That it takes, and no others, but for `folder` and `path`: beside files."""
    about: str = ""


class Completed(NamedTuple):
    """What is completed behind a command."""

    about: str
    flags: list[Flag]
    takes: Flag
    """What its words are."""
