"""Configuration files (TOML, YAML, JSON) and presets.  Flags win over the file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Set
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from .base import Settings
from .names import canonical_names

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
    if _is_preset(path):
        return _read_preset(str(name))
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"config: {path}: expected a file ending in {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config: {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config: {path}: is no text in UTF-8; save it as UTF-8") from None
    return _parse(text, path.suffix.lower(), str(path))


def load_config(cls: type[S], config: str | Path | None = None, flags: Mapping[str, Any] | None = None) -> S:
    """A configuration from an optional file or preset and from flags; flags win."""
    values = _known_names(cls, config) if config else {}
    given = canonical_names(flags or {}, cls.model_fields)
    suggested: Set[str] = set()
    file = Path(config) if config and not _is_preset(Path(config)) else None
    if config and file is None:
        values = {name: v for name, v in values.items() if not any(name in RIVALS.get(other, ()) for other in given)}
        suggested = values.keys() - given.keys()
    return cls.from_mapping(values | given, suggested, file)


def _known_names(cls: type[Settings], config: str | Path) -> dict[str, Any]:
    """The settings of a file or preset, by this library's names."""
    values = read_config_file(config)
    try:
        return canonical_names(values, cls.model_fields)
    except ConfigError as error:
        hint = "; presets are for `dreambooth train`" if _is_preset(Path(config)) else ""
        raise ConfigError(f"config: {config}: {error}{hint}") from None


def _is_preset(path: Path) -> bool:
    return not path.suffix and not path.is_file()  # a folder of that name hides no preset


def _read_preset(name: str) -> dict[str, Any]:
    file = resources.files("dreamcore.configs") / f"{name}.toml"
    if not file.is_file():
        raise ConfigError(f"config: {name!r} is neither a file nor a preset; presets: {', '.join(preset_names())}")
    return _parse(file.read_text(encoding="utf-8"), ".toml", f"preset {name}")


def _parse(text: str, suffix: str, origin: str) -> dict[str, Any]:
    try:
        if suffix == ".toml":
            values = tomllib.loads(text)
        elif suffix == ".json":
            values = json.loads(text)
        else:
            import yaml

            values = yaml.load(text, Loader=_yaml_loader())
    except Exception as error:  # each parser raises its own type
        raise ConfigError(f"config: {origin}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config: {origin}: expected settings as key: value, found {type(values).__name__}")
    if strange := [name for name in values if not isinstance(name, str)]:
        raise ConfigError(f"config: {origin}: {strange[0]!r} is no setting's name; expected settings as key: value")
    return values


def _yaml_loader() -> Any:
    """PyYAML's safe loader with two rules of YAML 1.2: 1e-4 is a number, and `no` is a word (`mixed_precision: no`)."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), list("tTfF"))
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader
