"""What a name of another trainer's means here: a setting, several, nothing, or why not and what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TOKEN = "hub_token"
"""A secret, understood and never kept: `Settings.token`."""
Kind = Literal["value", "switch", "list"]
Settings = Mapping[str, Any]


class Refused(ValueError):
    """A name or value that has no counterpart here; its text is the reason, and what to use instead."""


@dataclass(frozen=True)
class Meaning:
    """One name.

    Args:
        words: for the documents, what it means here.
        read: a value, as text or as a file has it -> the settings that it makes; raises `Refused`.
        kind: whether the flag takes a value, several, or none.
        warning: said where it is given.
    """

    words: str
    read: Callable[[Any], Settings]
    kind: Kind = "value"
    warning: str = ""


def same(setting: str, value: Callable[[Any], Any] = lambda value: value, kind: Kind = "value") -> Meaning:
    """Another name of a setting; `value` turns its spelling of a value into ours."""
    return Meaning(f"`{setting}`", lambda given: {setting: value(given)}, kind)


def several(words: str, read: Callable[[Any], Settings], kind: Kind = "value") -> Meaning:
    """What makes one or more settings."""
    return Meaning(words, read, kind)


def ignored(why: str, kind: Kind = "value", warning: str = "") -> Meaning:
    """What changes nothing here."""
    return Meaning(f"accepted: {why}", lambda given: {}, kind, warning)


def refused(why: str, *same_as: Any, kind: Kind = "value") -> Meaning:
    """What has no counterpart, but for values (`same_as`, beside off and nothing) that ask for what is done anyway."""

    def read(given: Any) -> Settings:
        if given is None or truth(given) is False or str(given) in map(str, same_as):
            return {}
        raise Refused(why)

    return Meaning(f"refused: {why}", read, kind)


def truth(value: Any) -> bool | None:
    """What a value says as a switch; None where it is none."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return value if isinstance(value, bool) else words.get(str(value).strip().lower())


def switch(value: Any) -> bool:
    """A value that must be a switch."""
    said = truth(value)
    if said is None:
        raise Refused(f"expected true or false; received {value!r}")
    return said


def one_of(setting: str, values: Mapping[str, Any], kind: Kind = "value", instead: str = "") -> Meaning:
    """Another name of a setting whose values have other names too; all others are refused."""

    def read(given: Any) -> Settings:
        spelt = str(given).strip().lower()
        if spelt not in values:
            raise Refused(f"expected one of {', '.join(values)}; received {given!r}{instead}")
        return {setting: values[spelt]}

    return Meaning(f"`{setting}`", read, kind)


@dataclass(frozen=True)
class Script:
    """A file of another trainer's that its users start.

    Args:
        command: ours.
        settings: what starting it says.
    """

    command: Literal["train", "generate"] = "train"
    settings: Settings = field(default_factory=dict)


def as_they_are(values: Settings) -> Settings:
    """Of a system none of whose names are parts of one setting."""
    return values


def nothing_more(family: str, lora: bool) -> Settings:
    """Of a system whose defaults are the same for every model."""
    return {}


@dataclass(frozen=True)
class System:
    """Another trainer: what its names mean here, and its defaults.

    Args:
        name: as `like` gives it.
        about: one line for the list of presets.
        backend: whose framework it runs on; None for any.
        scripts: by file name.
        train, generate: what its names mean to each command; those that it shares with diffusers need no entry.
        defaults: of training, where they are other than ours.
        of_model: those that depend on the family (its name) and on whether LoRA trains.
        generates: defaults of `generate`.
        configuration: the names by which it is given a file of settings.
        combine: makes settings of names that are parts of one.
        draws: names beside which its training command makes images instead.
    """

    name: str
    about: str
    backend: str | None
    scripts: Mapping[str, Script]
    train: Mapping[str, Meaning]
    generate: Mapping[str, Meaning] = field(default_factory=dict)
    defaults: Settings = field(default_factory=dict)
    of_model: Callable[[str, bool], Settings] = nothing_more
    generates: Settings = field(default_factory=dict)
    configuration: tuple[str, ...] = ()
    combine: Callable[[Settings], Settings] = as_they_are
    draws: tuple[str, ...] = ()

    @property
    def every_name(self) -> set[str]:
        """Its names, of either command and of files."""
        return {*self.train, *self.generate, *self.configuration}

    def names(self, command: str) -> Mapping[str, Meaning]:
        """What its names mean to a command."""
        return {"train": self.train, "generate": self.generate}.get(command, {})
