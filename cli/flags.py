"""Flags made from a configuration's fields, and a command line read into the settings that it names.

argparse, rather than a library that builds the configuration itself: a flag's text must stay as it was typed until it
is laid over the configuration file, and only what was typed may count as given.  Checking is the configuration's
business alone, so that a file and a flag meet the same rules and the same messages.
"""

from __future__ import annotations

import argparse
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from dreamcore.config import Settings
from dreamcore.config.base import kinds_of
from dreamcore.config.compat import Meaning, meanings
from dreamcore.config.describe import in_files_only, kind
from dreamcore.config.loading import find_system
from dreamcore.config.names import ALIASES, unknown_name
from dreamcore.errors import ConfigError

from .help import show_help, topics_in


def parse_settings(
    cls: type[Settings], command: str, about: str, argv: Sequence[str], own: str = ""
) -> tuple[str | None, dict[str, Any], list[str], list[str]]:
    """The configuration file (or preset) that `argv` names, the settings that it gives, as text, what is wrong, and
    what is to be said.

    `-` and `_` are alike in flags.  A boolean is given as `--x`, `--x=True`, `--x False` or `--no-x`; a list with
    commas or as several words; `none` takes a setting back to having no value.  Words before all flags are those
    settings that `WORDS` names: the folder of photographs, a source and a target.

    Args:
        own: words that the command takes besides settings, for its usage: "[FOLDER] [--json] ".

    Returns:
        Arguments of `load_config`; what is wrong are flags that do not exist, each with the nearest one, flags given
        twice and stray words.  Settings may bear another trainer's names.

    Raises:
        ConfigError: a flag without its value.
    """
    notes = list[str]()
    words = [_mended(_underscored(word), notes) for word in argv]
    table = _names(cls, words)
    parser = _parser(cls, command, table)
    if (topics := topics_in(words)) is not None:
        show_help(cls, command, about, own, topics, _known(parser, words))
        raise SystemExit(0)
    for place, name in enumerate(cls.WORDS):
        if place == len(words) or words[place].startswith("-"):
            break
        words[place] = f"--{name}={words[place]}"
    parsed, rest = parser.parse_known_args(words)
    values = vars(parsed)
    config = values.pop("config", None) if "config" not in table else None
    own_names = {*cls.model_fields, *ALIASES.keys() - table.keys()}
    given = {n: _value(_field(cls, n), text) if n in own_names else _joined(text) for n, text in values.items()}
    return config, given, [*parser.twice, *_complaints(rest, cls)], notes


def flag_names(words: Sequence[str]) -> dict[str, str]:
    """The names of the flags among words, with the values that stand behind an equals sign or follow."""
    found = {}
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word.startswith("--"):
            name, equals, value = _underscored(word)[2:].partition("=")
            found[name] = value if equals else after
    return found


def _names(cls: type[Settings], words: Sequence[str]) -> dict[str, Meaning]:
    """What other trainers' names among the flags mean: diffusers', and those of the one whose command line this is."""
    system = find_system(cls, flag_names(words))
    table = meanings(system, cls.COMMAND)
    return table | dict.fromkeys(system.configuration if system else (), Meaning("`config`", dict))


def _mended(word: str, notes: list[str]) -> str:
    """`--flag==value`, a slip that is printed in README files, as `--flag=value`."""
    flag, equals, value = word.partition("==")
    if not equals or "=" in flag or not flag.startswith("--") or flag.endswith(SECRETS):
        return word
    notes.append(f"{word}: read as {flag}={value}")
    return f"{flag}={value}"


def _known(parser: CommandParser, words: Sequence[str]) -> dict[str, Any]:
    """What words beside --help give; nothing where a flag lacks its value, for help is given all the same."""
    try:
        return vars(parser.parse_known_args([word for word in words if word not in ("-h", "--help")])[0])
    except ConfigError:
        return {}


SECRETS = ("token", "api_key")
"""Ends of the names of flags whose values are not repeated."""


class CommandParser(argparse.ArgumentParser):
    """A parser that notes each flag that is given twice, with two values."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.twice: list[str] = []
        self.register("action", None, _Store)
        self.register("action", "store_const", _StoreConst)

    def note(self, name: str, old: Any, new: Any) -> None:
        """Note a value that would replace another."""
        if old is not None and old != new:
            old, new = ("one", "another") if name.endswith(SECRETS) else (old, new)
            both = " and ".join(" ".join(value) if isinstance(value, list) else str(value) for value in (old, new))
            self.twice.append(f"--{name}: given twice, as {both}; give it once")

    def error(self, message: str) -> NoReturn:
        said = message.replace("argument --", "--")
        if said.endswith("expected one argument"):
            flag = said.partition(":")[0]
            said += f"; a value that begins with - is given as {flag}=VALUE"
        raise ConfigError(said)


class _Store(argparse._StoreAction):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        parser.note(self.dest, getattr(namespace, self.dest, None), values)
        super().__call__(parser, namespace, values, option_string)


class _StoreConst(argparse._StoreConstAction):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        parser.note(self.dest, getattr(namespace, self.dest, None), self.const)
        super().__call__(parser, namespace, values, option_string)


def _parser(cls: type[Settings], command: str, table: Mapping[str, Meaning]) -> CommandParser:
    """The command's flags, and those of another trainer (`table`)."""
    parser = CommandParser(
        prog=f"dreambooth {command}", argument_default=argparse.SUPPRESS, allow_abbrev=False, add_help=False
    )
    if "config" not in table:
        parser.add_argument("--config")
    for name in cls.model_fields:
        if name not in in_files_only(cls):
            _add_flag(parser, cls, name, several=name in table and table[name].kind == "list")
    for alias, name in ALIASES.items():
        if name in cls.model_fields and alias not in {*cls.model_fields, *table} and name not in in_files_only(cls):
            _add_flag(parser, cls, name, alias)
    for name, meaning in table.items():
        if name not in cls.model_fields:
            _add_foreign(parser, name, meaning)
    return parser


def _add_foreign(parser: CommandParser, name: str, meaning: Meaning) -> None:
    """A flag of another trainer's; a switch may be given a value too."""
    taken: dict[str, Any] = {"switch": {"nargs": "?", "const": "true"}, "list": {"nargs": "+"}}.get(meaning.kind, {})
    parser.add_argument(f"--{name}", **taken)


def _add_flag(
    parser: CommandParser, cls: type[Settings], field_name: str, name: str = "", several: bool = False
) -> None:
    name, of = name or field_name, kind(cls.model_fields[field_name])
    if of is bool:
        parser.add_argument(f"--{name}", nargs="?", const="true")
        parser.add_argument(f"--no_{name}", dest=name, action="store_const", const="false")
    else:
        parser.add_argument(f"--{name}", nargs="+" if several or typing.get_origin(of) is list else None)


def _field(cls: type[Settings], name: str) -> FieldInfo:
    return cls.model_fields[name if name in cls.model_fields else ALIASES[name]]


def _value(field: FieldInfo, text: Any) -> Any:
    """A flag's text as the configuration takes it; numbers and booleans are left for it to read."""
    if kinds_of(field.annotation) != (field.annotation,) and text in ("none", "None", ["none"], ["None"]):
        return None
    return _joined(text)


def _joined(text: Any) -> Any:
    """Several words of one flag as one, with commas."""
    return ",".join(text) if isinstance(text, list) else text


def _underscored(word: str) -> str:
    """`--with-prior=a-b` as `--with_prior=a-b`."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word[2:].partition("=")
    return f"--{flag.replace('-', '_')}{equals}{value}"


def _complaints(rest: Sequence[str], cls: type[Settings]) -> Iterator[str]:
    """What is said of words that argparse knows nothing of; those after an unknown flag are its own."""
    before = ""
    for word in rest:
        if word.startswith("-") or not before.startswith("-"):
            yield _complaint(word, cls)
            before = word


def _complaint(word: str, cls: type[Settings]) -> str:
    if not word.startswith("-"):
        first = f"; {' '.join(cls.WORDS).upper()} come before flags" if "target" in cls.WORDS else ""
        return f"{word!r}: a word that belongs to no flag; values with spaces need quotes{first}"
    flag = word.partition("=")[0]
    name = ALIASES.get(flag.lstrip("-"), flag.lstrip("-"))
    if name in in_files_only(cls):
        return f"{flag}: not a flag; give {name} in a configuration file (--config)"
    return "--" + unknown_name(flag.lstrip("-"), [*cls.model_fields, "config"])
