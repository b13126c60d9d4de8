"""Configuration files (TOML, YAML, JSON) and presets."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..io.text import read_text
from .numbers import WrittenFloat, WrittenInt

SUFFIXES = (".toml", ".yaml", ".yml", ".json")


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
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"config: {path}: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, path.suffix.lower(), str(path))


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
