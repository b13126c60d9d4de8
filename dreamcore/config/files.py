"""Configuration files (TOML, YAML, JSON) and presets.  Flags win over the file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence, Set
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from .base import Settings
from .names import canonical_names
from .numbers import WrittenFloat, WrittenInt

SUFFIXES = (".toml", ".yaml", ".yml", ".json")
S = TypeVar("S", bound=Settings)
RIVALS = {
    "num_train_epochs": ("max_train_steps",),
    "validation_epochs": ("validation_steps",),
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
) -> S:
    """A configuration from an optional file or preset and from flags; flags win.

    Args:
        problems: what is wrong with the flags already, to be said together with the rest.

    Raises:
        ConfigError: naming everything that is wrong.
    """
    found = list(problems)
    try:
        values = _known_names(cls, config, found) if config is not None else {}
    except ConfigError as error:
        raise ConfigError("\n".join([*found, str(error)])) from None
    given = canonical_names(flags or {}, cls.model_fields, found)
    suggested: Set[str] = set()
    file = Path(config) if config is not None and not is_preset(Path(config)) else None
    if config is not None and file is None:
        values = {name: v for name, v in values.items() if not any(name in RIVALS.get(other, ()) for other in given)}
        suggested = values.keys() - given.keys()
    return cls.from_mapping(values | given, suggested, found, file)


def _known_names(cls: type[Settings], config: str | Path, problems: list[str]) -> dict[str, Any]:
    """The settings of a file or preset, by this library's names; `problems` receives those that are none."""
    values, unknown = read_config_file(config), list[str]()
    known = canonical_names(values, cls.model_fields, unknown)
    if unknown and is_preset(Path(config)):
        raise ConfigError(f"config: {config}: presets are for `dreambooth train`")
    problems += [f"config: {config}: {text}" for text in unknown]
    return known


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
