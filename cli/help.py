"""A command's help: the settings that matter first; one subject of them, or one setting, or all, where that is asked.

For which backend and which model it is, its other flags say: it leaves out the settings that can act on neither.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dreamcore.backends.installed import installed_backends
from dreamcore.config import Settings, TrainConfig, preset_names
from dreamcore.config.describe import (
    aliases,
    as_flag,
    choices,
    default_in_words,
    example,
    groups,
    in_files_only,
    kind,
)
from dreamcore.config.loading import read_settings
from dreamcore.config.names import ALIASES
from dreamcore.config.used import Context, ModelFacts, conditions, elsewhere
from dreamcore.errors import ConfigError

from .explain import explain, find_name
from .layout import width, wrapped
from .verbosity import SAYS

MODEL = "pretrained_model_name_or_path"
CONFIG = "File of settings (flags win over it), or a preset: `dreambooth configs`"


def topics_in(words: Sequence[str]) -> list[str] | None:
    """What help is asked about: the words behind --help, `--help=NAME` among them; None where none is asked for."""
    found: list[str] | None = None
    open_ = False
    for word in words:
        flag, _, topic = word.partition("=")
        if flag in ("-h", "--help"):
            found, open_ = [*(found or []), *([topic] if topic else [])], True
        elif open_ and found is not None and not word.startswith("-"):
            found.append(word)
        else:
            open_ = False
    return found


def show_help(
    cls: type[Settings], command: str, about: str, own: str, topics: Sequence[str], given: Mapping[str, Any]
) -> None:
    """Print help.

    Args:
        own: words that the command takes besides settings, for its usage.
        topics: what it is asked about: all, subjects, settings; without any, what matters first.
        given: what the flags beside it give.

    Raises:
        ConfigError: a topic that there is not.
    """
    usage = f"usage: dreambooth {command} {own}[--config FILE] [--SETTING VALUE ...]"
    lines = [*wrapped(usage, more=len("usage: ")), ""]
    said = [line for part in about.split("\n") for line in wrapped(part)]
    hidden = elsewhere(cls, help_context(given))
    if not topics and cls.ESSENTIAL:
        lines += [*said, "", *_essential(cls)]
        lines += ["", *_ways_on(cls, command)]
    elif not topics or list(topics) == ["all"]:
        lines += [*said, "", *_everything(cls, hidden)]
    else:
        parts = [_topic(cls, command, topic, hidden) for topic in topics]
        lines = [line for part in parts for line in [*part, ""]][:-1]
    print(*lines, sep="\n")


def _essential(cls: type[Settings]) -> Iterator[str]:
    """Each setting that matters first: its flag with an example, and below what it is."""
    yield "The settings that matter first, each with an example:"
    if issubclass(cls, TrainConfig):
        yield "  --config sd15-lora"
        yield from wrapped(CONFIG, 6)
    for name in cls.ESSENTIAL:
        field = cls.model_fields[name]
        short = min(
            [name, *(n for n in aliases(name) if n not in cls.model_fields and 2 * len(n) <= len(name))], key=len
        )
        word = f"{_word(name)}, " if name in cls.WORDS else ""
        yield f"  {word}{as_flag(short, example(field))}"
        said = _brief(field.description or "")
        full = f" (--{name})" if short != name else ""
        default = "" if "default" in said or kind(field) is bool else default_in_words(field)
        yield from wrapped(f"{said}{full}{f' (default: {default})' if default and not field.is_required() else ''}", 6)


def _word(name: str) -> str:
    """A setting's word in a command's usage."""
    return "FOLDER" if name.endswith("_dir") else name.upper()


def _brief(text: str) -> str:
    """The first clauses of a docstring, as many as one line holds, one at least."""
    first, *others = re.split(r"(?<=[;.])\s+(?![^(]*\))", " ".join(text.split()))
    if len(first) + 6 > width():
        first = re.sub(r" \([^)]*\)", "", first)
    for clause in others:
        if len(first) + len(clause) + 7 > width():
            break
        first = f"{first} {clause}"
    return first.rstrip(";.")


def _ways_on(cls: type[Settings], command: str) -> Iterator[str]:
    """How to ask for more."""
    count = len(cls.LOOKS_AT or cls.model_fields)
    yield "More:"
    yield f"  --help all      all {count} settings"
    listed = ", ".join(_seen_groups(cls))
    yield from wrapped(f"  --help GROUP    one subject: {listed}", more=18)
    yield f"  --help NAME     one setting: what it takes and when it acts; --help {min(cls.ESSENTIAL, key=len)}"
    yield "  --quiet, --verbose    say less than usual, or more"


def _seen_groups(cls: type[Settings]) -> dict[str, list[str]]:
    """The subjects, with the settings that the command looks at."""
    looks_at = cls.LOOKS_AT if cls.LOOKS_AT is not None else cls.model_fields
    found = {title: [name for name in group.names if name in looks_at] for title, group in groups(cls).items()}
    return {title: names for title, names in found.items() if names}


def _topic(cls: type[Settings], command: str, topic: str, hidden: Collection[str]) -> list[str]:
    """Help about one subject or setting."""
    if topic == "all":
        raise ConfigError("--help all: given beside others; give it alone")
    if topic in groups(cls):
        return [*_group(cls, topic, hidden), *_unseen(cls, topic)]
    return explain(cls, command, find_name(cls, command, topic), topic)


def _unseen(cls: type[Settings], title: str) -> list[str]:
    """That a command takes settings and does not look at them."""
    unseen = [n for n in groups(cls)[title].names if cls.LOOKS_AT is not None and n not in cls.LOOKS_AT]
    said = f"Taken from a training run's configuration, and not looked at: {', '.join(unseen)}."
    return ["", *wrapped(said)] if unseen else []


def _everything(cls: type[Settings], hidden: Mapping[str, str]) -> Iterator[str]:
    """All settings by subject, and what is not shown."""
    yield from _row("--config FILE_OR_PRESET", f"{CONFIG}.")
    for flag, said in SAYS.items():
        yield from _row(f"--{flag}", f"{said[0].upper()}{said[1:]}.")
    for title in _seen_groups(cls):
        yield from ["", *_group(cls, title, hidden)]
    yield ""
    presets = f"Presets: {', '.join(preset_names())}.  " if issubclass(cls, TrainConfig) else ""
    unseen = sum(1 for name in cls.model_fields if cls.LOOKS_AT is not None and name not in cls.LOOKS_AT)
    others = f"  The other {unseen} settings of training are taken, and make no difference here." if unseen else ""
    yield from wrapped(f"{presets}{_file_only(cls)}{_not_shown(cls, hidden)}{others}")


def _group(cls: type[Settings], title: str, hidden: Collection[str]) -> Iterator[str]:
    """A subject's settings, each with its docstring, when it acts and its default."""
    yield from wrapped(f"{title}: {groups(cls)[title].about}")
    for name in _seen_groups(cls).get(title, ()):
        if name in in_files_only(cls) or name in hidden:
            continue
        field, when = cls.model_fields[name], conditions(cls, name)
        also = [f"--{other}" for other in aliases(name) if other not in cls.model_fields]
        default = default_in_words(field)
        flag, said = f"--{name} {metavar(cls, name)}".rstrip(), [field.description or ""]
        if len(flag) + 2 > width():
            flag, said = f"--{name} WORD", [*said, f"One of {', '.join(choices(field))}."]
        said += [f"Acts only {when}."] if when else []
        said += [f"Also {', '.join(also)}."] if also else []
        said += ["(required)" if field.is_required() else f"(default: {default})"] if default else []
        yield from _row(flag, " ".join(said))


def metavar(cls: type[Settings], name: str) -> str:
    """What stands for a setting's value."""
    field = cls.model_fields[name]
    if words := choices(field):
        return "{" + ",".join(words) + "}"
    if str(kind(field)).startswith("list"):
        return "A,B"
    return {int: "N", float: "X", bool: ""}.get(kind(field), "TEXT")


def _row(flag: str, text: str, column: int = 34) -> list[str]:
    """A flag and what is said of it, beside it or below."""
    lines = wrapped(text, column)
    if len(flag) + 4 > column:
        return [f"  {flag}", *lines]
    return [f"  {flag}".ljust(column) + lines[0].lstrip(), *lines[1:]] if lines else [f"  {flag}"]


def _file_only(cls: type[Settings]) -> str:
    names = in_files_only(cls)
    return f"In a configuration file only: {', '.join(names)}." if names else ""


def _not_shown(cls: type[Settings], hidden: Mapping[str, str]) -> str:
    """Which settings the help does not show, and where they act."""
    places: dict[str, list[str]] = {}
    for name, where in hidden.items():
        if cls.LOOKS_AT is None or name in cls.LOOKS_AT:
            places.setdefault(where, []).append(name)
    listed = "; ".join(f"{where}: {', '.join(names)}" for where, names in places.items())
    return f"  Not shown, as they act only {listed}." if listed else ""


def help_context(given: Mapping[str, Any]) -> Context:
    """What is known of the run that a help's other flags speak of: its backend, where one is named or only one is
    installed, and its model, where that is a folder on this machine."""
    said: dict[str, Any] = {}
    if given.get("config"):
        with suppress(ConfigError):  # which the run itself will say
            said = read_settings(given["config"])
    installed = installed_backends()
    known = {ALIASES.get(name, name): value for name, value in [*said.items(), *given.items()]}
    return Context(known.get("backend") or (installed[0] if len(installed) == 1 else None), _facts(known.get(MODEL)))


def _facts(name: Any) -> ModelFacts | None:
    if not isinstance(name, str) or not Path(name).expanduser().is_dir():
        return None
    from dreamcore.models.folder import ModelFolder  # NumPy comes with it
    from dreamcore.models.settings import model_facts

    try:
        return model_facts(ModelFolder.open(name))
    except ConfigError:
        return None
