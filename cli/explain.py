"""`--help NAME`: one setting, with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from dreamcore.config import Settings, TrainConfig
from dreamcore.config.concepts import Concept
from dreamcore.config.describe import (
    aliases,
    as_flag,
    as_line,
    default_in_words,
    example,
    foreign_names,
    group_of,
    groups,
    in_files_only,
    preset_values,
    type_in_words,
)
from dreamcore.config.names import ALIASES, nearest
from dreamcore.config.used import conditions
from dreamcore.errors import ConfigError

from .layout import wrapped


def find_name(cls: type[Settings], command: str, topic: str) -> str:
    """The setting that a word means: its name, another of its names, or another trainer's name for it.

    Raises:
        ConfigError: it means none; with the nearest that does.
    """
    word = topic.lstrip("-").replace("-", "_")
    if word in cls.model_fields:
        return word
    if (own := ALIASES.get(word)) in cls.model_fields:
        return own
    foreign = foreign_names(cls.COMMAND)
    if own := next((own for own, names in foreign.items() if word in names and own in cls.model_fields), None):
        return own
    near = nearest(word, [*cls.model_fields, *groups(cls), *ALIASES, "all"])
    holding = [name for name in cls.model_fields if word in name] if len(word) > 2 else []
    holding = holding or get_close_matches(word, cls.model_fields, 3, 0.7)
    if near:
        hint = f"did you mean {near}?"
    elif holding:
        hint = f"there are {', '.join(holding[:8])}"
    else:
        hint = f"`dreambooth {command} --help all` has them all"
    raise ConfigError(f"--help {topic}: no setting and no group of that name; {hint}")


def explain(cls: type[Settings], command: str, name: str, asked: str) -> list[str]:
    """One setting: its docstring, type, default, when it acts, other names, presets, examples.

    Args:
        asked: the name that it was asked for by.
    """
    field = cls.model_fields[name]
    shown = name if name in in_files_only(cls) else f"--{name}"
    word = asked.lstrip("-").replace("-", "_")
    lines = [shown if word == name else f"{shown}, which {word} means", ""]
    lines += [*wrapped(field.description or "", 2), ""]
    for title, text in _facts(cls, command, name):
        lines += wrapped(text, 14, first=f"  {title}")
    return lines


def _facts(cls: type[Settings], command: str, name: str) -> Iterator[tuple[str, str]]:
    field = cls.model_fields[name]
    yield "takes", type_in_words(name, field)
    if default := default_in_words(field):
        yield "default", default
    if when := conditions(cls, name):
        yield "acts only", when
    if cls.LOOKS_AT is not None and name not in cls.LOOKS_AT:
        yield "here", f"taken, and without effect; it is for `dreambooth {cls.COMMAND}`"
    if also := [f"--{other}" for other in aliases(name) if other not in cls.model_fields]:
        yield "also", ", ".join(also)
    if theirs := foreign_names(cls.COMMAND).get(name):
        yield "elsewhere", "; ".join(f"{other} ({', '.join(who)})" for other, who in theirs.items())
    if issubclass(cls, TrainConfig) and (given := preset_values(name)):
        yield "presets", "; ".join(f"{value}: {', '.join(presets)}" for value, presets in given.items())
    yield "group", f"{group_of(cls, name)} (dreambooth {command} --help {group_of(cls, name)})"
    if name in in_files_only(cls):
        yield "in a file", f"a table [[{name}]] for each, with {', '.join(Concept.model_fields)}"
        return
    value = example(field)
    yield "example", as_flag(name, value)
    yield "in a file", as_line(name, value)
