"""Configuration files (TOML, YAML, JSON) and presets."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..io.text import read_text
from .names import PRESET, nearest
from .numbers import WrittenFloat, WrittenInt

SUFFIXES = (".toml", ".yaml", ".yml", ".json")


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
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"config: {path}: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, path.suffix.lower(), str(path))


class Layer(NamedTuple):
    """What one file or preset says."""

    origin: str
    """The file, or the preset's name."""
    values: dict[str, Any]
    is_preset: bool


def read_layers(name: str | Path) -> list[Layer]:
    """A configuration file or preset, what it builds on by its line `preset = "NAME"`, and so on: the first that gives
    a setting wins.  NAME is a preset's, or a file's beside the one that names it.

    Raises:
        ConfigError: as `read_config_file`; no such preset, or files that build on each other in a circle.
    """
    layers, chain = list[Layer](), list[Path]()
    values, here = read_config_file(name), Path(name)
    while True:
        preset = is_preset(here)
        base = values.pop(PRESET, None)
        layers.append(Layer(str(here), values, preset))
        if base is None:
            return layers
        chain.append(here)
        here = _beside(here, base)
        if not is_preset(here) and here.resolve() in [one.resolve() for one in chain]:
            circle = ", which builds on ".join(str(one) for one in [*chain, here])
            raise ConfigError(f"config: {circle}: a circle; let one of them build on a preset, or on nothing")
        values = read_config_file(here)


def _beside(file: Path, base: Any) -> Path:
    """What a file builds on.

    Raises:
        ConfigError: it is neither a preset nor a file beside it.
    """
    known = preset_names()
    what = f"config: {file}: {PRESET}: {base!r}: expected a preset ({', '.join(known)}) or a file beside it"
    if not isinstance(base, str) or Path(base).name != base:
        raise ConfigError(what)
    if base in known:
        return Path(base)
    if not (file.parent / base).is_file():
        near = nearest(base, known)
        raise ConfigError(f"{what}; did you mean {near}?" if near else what)
    return file.parent / base


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
