"""Functions that take settings as keywords, as they are shown where they are typed: in a prompt, in a notebook.

What type checkers and editors know of them is in `keywords.py`.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from .base import Settings
from .describe import groups

F = TypeVar("F", bound=Callable[..., Any])
WIDTH = 88


class _Signature(inspect.Signature):
    """Has every setting among its parameters, whom completion and a notebook's `?` ask; `help` prints it in one line,
    and has the settings in the text below."""

    def __str__(self) -> str:
        shown = [p for p in self.parameters.values() if p.name not in self._settings]
        return str(inspect.Signature(shown, return_annotation=self.return_annotation))

    _settings: frozenset[str] = frozenset()


def with_settings(function: F, cls: type[Settings]) -> F:
    """Show the settings of `cls` as a function's keywords, and what each is in its description.

    Args:
        function: takes them as `**settings`, among which others' names for them are understood, too; it may have some
            as parameters of its own.
    """
    plain = inspect.signature(function)
    settings = {name: cls.model_fields[name] for name in _in_order(cls) if name not in plain.parameters}
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=field.annotation)
        for name, field in settings.items()
    ]
    *own, others = plain.parameters.values()
    signature = _Signature([*own, *keywords, others.replace(annotation=Any)], return_annotation=plain.return_annotation)
    signature._settings = frozenset(settings)
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", *_described(cls)])
    return function


def _in_order(cls: type[Settings]) -> Iterator[str]:
    """Those that most runs give first, then by subject."""
    yield from cls.ESSENTIAL
    yield from (name for group in groups(cls).values() for name in group.names if name not in cls.ESSENTIAL)


def _default(field: FieldInfo) -> Any:
    """`...` where one must be given, here or by the configuration."""
    return ... if field.is_required() else field.default


def _described(cls: type[Settings]) -> Iterator[str]:
    yield "Settings:"
    for name in _in_order(cls):
        field = cls.model_fields[name]
        default = "" if field.is_required() else f" = {field.default!r}"
        yield f"    {name}: {inspect.formatannotation(field.annotation)}{default}"
        yield from textwrap.wrap(field.description or "", WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
