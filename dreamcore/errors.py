"""The two ways in which a run ends without a result.

`ConfigError` is the user's to mend: it names the file or setting, the value received and what would be right, and it
is raised before any costly work.  `RunError` is what stops a run that had started; it says what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def to_install(extra: str) -> str:
    """How to get one of this library's extras; it is not on an index of packages, where its name may be another's."""
    return f"pip install '.[{extra}]' in a clone of this library's repository"


class ConfigError(ValueError):
    """Bad input: a setting, a file or a folder that cannot be used as given."""


class LackingError(ConfigError):
    """The device lacks the precision that a setting asks for."""


class RunError(RuntimeError):
    """A started run cannot go on (disk full, loss not finite, damaged checkpoint ...)."""


class CallbackError(RunError):
    """A callback that was given to `train` failed (`__cause__` is its exception); the run has stopped, and saved."""


class LostRankError(RunError):
    """Another process of the run is gone; its own message says why, where it left one."""


@contextmanager
def named(what: str) -> Iterator[None]:
    """Put what a run was busy with before the words of a RunError."""
    try:
        yield
    except RunError as error:
        raise type(error)(f"{what}: {error}") from error


def in_a_line(error: BaseException) -> str:
    """The first line of what an error says, with its type where that is none of this library's."""
    known = isinstance(error, ConfigError | RunError)
    return (str(error) if known else f"{type(error).__name__}: {error}").partition("\n")[0]
