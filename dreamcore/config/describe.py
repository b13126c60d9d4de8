"""What is said of settings, for help, documents and completion: their subjects, types, other names, presets."""

from __future__ import annotations

import functools
import json
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .base import PATHS, Settings, kinds_of
from .compat import SYSTEMS
from .files import preset_names, read_config_file
from .names import ALIASES


class Group(NamedTuple):
    """Settings of one subject."""

    about: str
    names: list[str]


@functools.cache
def groups(cls: type[Settings]) -> Mapping[str, Group]:
    """A configuration's settings by subject: of each class that it is put together from, what it is the first to
    bring."""
    found, seen = dict[str, Group](), set[str]()
    for owner in (one for one in reversed(cls.__mro__) if issubclass(one, Settings)):
        names = [n for n in cls.model_fields if n in vars(owner).get("__annotations__", {}) and n not in seen]
        seen.update(names)
        if names:
            plain = owner.__name__.removesuffix("Config").removesuffix("Settings").lower()
            about = (owner.__doc__ or "").strip().partition("\n")[0]
            found[vars(owner).get("GROUP") or plain] = Group(about, names)
    return found


def group_of(cls: type[Settings], name: str) -> str:
    """The subject that a setting belongs to."""
    return next(title for title, group in groups(cls).items() if name in group.names)


@functools.cache
def in_files_only(cls: type[Settings]) -> list[str]:
    """Settings with a structure, which a flag cannot give."""
    kinds = {name: typing.get_args(kind(field)) for name, field in cls.model_fields.items()}
    return [name for name, args in kinds.items() if any(isinstance(a, type) and issubclass(a, BaseModel) for a in args)]


def kind(field: FieldInfo) -> Any:
    """A field's type without its `| None`."""
    return kinds_of(field.annotation)[0]


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a field takes, where only some are right."""
    return typing.get_args(kind(field)) if typing.get_origin(kind(field)) is Literal else ()


def place(name: str, field: FieldInfo) -> Literal["folder", "path"] | None:
    """Whether a setting names a folder, or a file or folder, on this machine."""
    if str not in kinds_of(field.annotation) and list[str] not in kinds_of(field.annotation):
        return None
    return "folder" if name.endswith("_dir") else "path" if name.endswith(PATHS) else None


def type_in_words(name: str, field: FieldInfo) -> str:
    """A setting's type and bounds."""
    if words := choices(field):
        return f"one of {', '.join(words)}"
    several = typing.get_origin(kind(field)) is list
    number = {int: "whole number", float: "number", list[float]: "numbers", list[int]: "whole numbers"}.get(kind(field))
    if number:
        return ", ".join([number, *_bounds(field)])
    if kind(field) is bool:
        return f"yes or no: --{name}, --no_{name}"
    if several and kind(field) is not list[str]:
        return "list of tables"
    text = {"folder": "folder", "path": "file or folder"}.get(place(name, field) or "", "text")
    return f"{text}, or several" if several else text


def _bounds(field: FieldInfo) -> list[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [(words[key], getattr(limit, key)) for limit in field.metadata for key in words if hasattr(limit, key)]
    return [f"{word} {'2^63' if value == 2**63 else f'{value:g}'}" for word, value in found]


def default_in_words(field: FieldInfo) -> str:
    """A setting's default; empty where the docstring says what takes its place, if anything does."""
    if field.is_required():
        return "none: it is required"
    if field.default is None or field.default == "":
        return ""
    return str(field.default).lower() if isinstance(field.default, bool) else _text(field.default)


def example(field: FieldInfo) -> Any:
    """A value to show: the declaration's own, or the other than the default, or the default."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get("example") is not None:
        return extra["example"]
    if kind(field) is bool:
        return not field.default
    others = [word for word in choices(field) if word not in (field.default, "no", "none")]
    return others[0] if others else None if field.is_required() else field.default


def as_flag(name: str, value: Any) -> str:
    """A setting on a command line, as a shell takes it."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    several = value if isinstance(value, list) else [value]
    return " ".join([f"--{name}", *(_quoted(_text(one)) for one in several)])


def as_line(name: str, value: Any) -> str:
    """A setting in a TOML file."""
    if isinstance(value, list):
        return f"{name} = [{', '.join(_literal(one) for one in value)}]"
    return f"{name} = {_literal(value)}"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else _text(value)


def _text(value: Any) -> str:
    """A value as people write it: 1e-4, and not 0.0001 or 1e-04."""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        digits, exponent = f"{value:e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w@%+=:,./~-]+", text) else f'"{text}"'


def aliases(name: str) -> list[str]:
    """Other names of a setting, whoever's they are."""
    return [other for other, own in ALIASES.items() if own == name]


@functools.cache
def foreign_names(command: str) -> Mapping[str, Mapping[str, list[str]]]:
    """Setting -> other trainers' names that make it -> whose they are."""
    found = dict[str, dict[str, list[str]]]()
    for system in SYSTEMS.values():
        for name, meaning in system.names(command).items():
            if not meaning.words.startswith(("refused", "accepted")):
                for setting in re.findall(r"`(\w+)`", meaning.words):
                    if setting != name:
                        found.setdefault(setting, {}).setdefault(name, []).append(system.name)
    return found


def preset_values(name: str) -> dict[str, list[str]]:
    """What presets give a setting, each value with those that do."""
    found = dict[str, list[str]]()
    for preset in preset_names():
        values = read_config_file(preset)
        if name in values:
            value = values[name]
            found.setdefault(str(value).lower() if isinstance(value, bool) else _text(value), []).append(preset)
    return found
