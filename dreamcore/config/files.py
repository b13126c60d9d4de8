"""Configuration files (TOML, YAML, JSON) and presets.  Flags win over the file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from .accelerate import said_by_accelerate
from .base import Settings
from .compat import SYSTEMS, Refused, System, meanings, of_names, own_names
from .compat.diffusers import DIFFUSERS
from .names import ALIASES, canonical_names, unknown_names
from .numbers import WrittenFloat, WrittenInt

SUFFIXES = (".toml", ".yaml", ".yml", ".json")
S = TypeVar("S", bound=Settings)
RIVALS = {
    "num_train_epochs": ("max_train_steps",),
    "max_train_steps": ("num_train_epochs",),
    "validation_epochs": ("validation_steps",),
    "validation_steps": ("validation_epochs",),
    "checkpointing_steps": ("checkpointing_epochs",),
    "checkpointing_epochs": ("checkpointing_steps",),
    "prompt_file": ("prompt",),
    "resolution": ("height", "width"),
    "height": ("resolution",),
    "width": ("resolution",),
    "validation_prompt": ("validation_steps",),
    "validation_data_dir": ("validation_steps",),
    "validation_share": ("validation_steps",),
}
"""Settings that say the same in other terms, two of which are refused where both are the user's, and those that ask for
more looking than presets do: a preset's give way to the user's."""


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("dreamcore.configs")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def preset_about(name: str) -> str:
    """The first clause of a preset's header."""
    text = (resources.files("dreamcore.configs") / f"{name}.toml").read_text(encoding="utf-8")
    header = " ".join(line.lstrip("# ") for line in text.partition("\n#\n")[0].splitlines())
    return re.split(r"[;.:] ", header)[0].rstrip(".")


def read_config_file(name: str | Path) -> dict[str, Any]:
    """The settings in a configuration file, or in the preset of that name.

    Raises:
        ConfigError: no such file or preset, a suffix that is not known, or a syntax error.
    """
    path = Path(name)
    if is_preset(path):
        return _read_preset(str(name))
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"config: {path}: expected a file ending in {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors begin a file with a byte order mark
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(f"config: {path}: is no text in UTF-8; save it as UTF-8") from None
        raise ConfigError(f"config: {path}: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, path.suffix.lower(), str(path))


def load_config(
    cls: type[S],
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> S:
    """A configuration from an optional file or preset and from flags; flags win.

    Another trainer's names are understood: those of `like`, or of the only one that has such names (`compat`).

    Args:
        problems: what is wrong with the flags already, to be said together with the rest.
        notes: what is to be said at the start.

    Raises:
        ConfigError: naming everything that is wrong.
    """
    found, said, flags = list(problems), list(notes), dict(flags or {})
    system = find_system(cls, flags)
    for name in system.configuration if system else ():
        config = _theirs(flags.pop(name)) if flags.get(name) else config
    try:
        values = read_config_file(config) if config is not None else {}
    except ConfigError as error:
        raise ConfigError("\n".join([*found, str(error)])) from None
    system = system or find_system(cls, values)
    of_preset = config is not None and is_preset(Path(config))
    values = _known_names(cls, config, values, system, found, said)
    given = canonical_names(flags, cls.model_fields, found, meanings(system, cls.COMMAND), said)
    base: dict[str, Any] = {}
    if of_preset:
        base, values = without_rivals(values, given), {}
    given = _joined(system, values | given, found)
    if system is not None:
        defaults = without_rivals(system.generates if cls.COMMAND == "generate" else system.defaults, base | given)
        defaults = {name: value for name, value in defaults.items() if name in cls.model_fields}
        said += _of_defaults(system, {**flags, **values}, defaults)
        base, given = defaults | base, {**given, "like": system.name}
    asked, wrong = said_by_accelerate()
    asked = {name: value for name, value in asked.items() if name in cls.model_fields and name not in base | given}
    if asked:
        said.append("accelerate: " + ", ".join(f"{name} {value}" for name, value in asked.items()))
    given, found = asked | given, found + wrong
    file = Path(config) if config is not None and not of_preset else None
    return cls.from_mapping(base | given, base.keys() - given.keys(), found, file, said)


def find_system(cls: type[Settings], values: Mapping[str, Any]) -> System | None:
    """The trainer that `like` names, or whose own names stand among the values."""
    like = values.get("like")
    if like is not None or "like" not in cls.model_fields:
        return SYSTEMS.get(str(like))
    ours = {"config", *settings_names(), *ALIASES, *DIFFUSERS.names(cls.COMMAND)}
    names = [name for raw in values if (name := raw.replace("-", "_")) not in ours]
    backend = values.get("backend")
    return of_names(names, cls.COMMAND, str(backend) if backend else None)


def settings_names() -> set[str]:
    """The settings' names of all commands."""
    classes = [Settings]
    for one in classes:
        classes += one.__subclasses__()
    return {name for one in classes for name in one.model_fields}


def without_rivals(values: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Suggested values, but for those that are given and those that would say otherwise what is given."""
    return {n: v for n, v in values.items() if n not in given and not any(n in RIVALS.get(o, ()) for o in given)}


def _theirs(name: Any) -> str:
    """A configuration file as another trainer names it, who may leave out that it is TOML."""
    file = Path(str(name)).expanduser()
    return str(file) if file.suffix else f"{file}.toml"


def _joined(system: System | None, values: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """The settings that parts of settings come to; what is wrong with them is wrong before anything else."""
    try:
        return dict(system.combine(values)) if system is not None else values
    except Refused as error:
        raise ConfigError("\n".join([*problems, str(error)])) from None


def _of_defaults(system: System, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """What is said of a trainer's defaults: why they are taken, and which."""
    own = [name for name in values if name in own_names(system)]
    why = "" if "like" in values or not own else f"{own[0]} is a name of {system.name}'s: "
    listed = ", ".join(f"{name} {value}" for name, value in defaults.items())
    return [f"{why}names and defaults as --like {system.name}" + (f": {listed}" if listed else "")]


def _known_names(
    cls: type[Settings],
    config: str | Path | None,
    values: Mapping[str, Any],
    system: System | None,
    problems: list[str],
    notes: list[str],
) -> dict[str, Any]:
    """The settings of a file or preset, by this library's names; `problems` receives those that are none."""
    if config is None:
        return {}
    wrong = list[str]()
    known = canonical_names(values, cls.model_fields, wrong, meanings(system, cls.COMMAND), notes)
    parts = {name: v for name, v in known.items() if name in cls.model_fields or system is not None}
    unknown_names({name: v for name, v in known.items() if name not in parts}, cls.model_fields, wrong)
    if wrong and is_preset(Path(config)):
        raise ConfigError(f"config: {config}: presets are for `dreambooth train`")
    problems += [f"config: {config}: {text}" for text in wrong]
    return parts


def is_preset(path: Path) -> bool:
    """Whether a name is a preset's, and not a file's."""
    return not path.suffix and not path.is_file()  # a folder of that name hides no preset


def _read_preset(name: str) -> dict[str, Any]:
    file = resources.files("dreamcore.configs") / f"{name}.toml"
    if not file.is_file():
        raise ConfigError(f"config: {name!r} is neither a file nor a preset; presets: {', '.join(preset_names())}")
    return parse(file.read_text(encoding="utf-8"), ".toml", f"preset {name}")


def parse(text: str, suffix: str, origin: str) -> dict[str, Any]:
    """The settings that a text holds.

    Args:
        suffix: one of `SUFFIXES`.
        origin: where the text comes from, for messages.

    Raises:
        ConfigError: it is damaged, gives something twice, or holds no settings.
    """
    try:
        if suffix == ".toml":
            values = tomllib.loads(text, parse_float=WrittenFloat)
        elif suffix == ".json":
            values = json.loads(text, object_pairs_hook=_once, parse_int=WrittenInt, parse_float=WrittenFloat)
        else:
            from .yaml12 import load

            values = load(text)
    except Exception as error:  # each parser raises its own type; too deep a nesting is a RecursionError
        raise ConfigError(f"config: {origin}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config: {origin}: expected settings as key: value, found {type(values).__name__}")
    if strange := [name for name in values if not isinstance(name, str)]:
        raise ConfigError(f"config: {origin}: {strange[0]!r} is no setting's name; expected settings as key: value")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose names may each come once: which of two values was meant, nobody can know."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)}: given twice; give it once")
    return values
