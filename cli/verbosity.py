"""`--quiet` and `--verbose`, which every command takes, wherever they stand among its words."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from dreamcore.errors import ConfigError

FLAGS = ("--quiet", "--verbose")
SAYS = {
    "quiet": "errors and results only; the run's log keeps everything",
    "verbose": "also what is decided and why, timings and memory",
}


def without_verbosity(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Which of the flags there is among words, and the others; behind `--` begins another command line.

    Raises:
        ConfigError: both, or one with a value.
    """
    own = list(words[: words.index("--")] if "--" in words else words)
    found = {word for word in own if word in FLAGS}
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(FLAGS)}: give one of them")
    for word in own:
        if word.startswith(tuple(f"{flag}=" for flag in FLAGS)):
            raise ConfigError(f"{word}: takes no value; give {word.partition('=')[0]} alone, or leave it out")
    rest = [word for word in own if word not in FLAGS]
    return next(iter(found), None), [*rest, *words[len(own) :]]


def saying(flag: str | None) -> AbstractContextManager[None]:
    """Say as much as a flag asks for."""
    if flag is None:  # help is printed without the tracker's imports
        return nullcontext()
    from dreamcore.track.verbosity import verbosity

    return verbosity("quiet" if flag == "--quiet" else "verbose")
