"""A configuration from flags, a file or a preset, another trainer's defaults: the first that gives a setting wins."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from .accelerate import said_by_accelerate
from .base import Settings
from .compat import SYSTEMS, Refused, System, meanings, of_names, own_names
from .compat.diffusers import DIFFUSERS
from .files import Layer, read_layers
from .names import ALIASES, canonical_names, unknown_names
from .places import settle_templates

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
    "concepts": ("instance_prompt", "class_prompt", "class_word"),
}
"""Settings that say the same in other terms, two of which are refused where both are the user's, and those that ask for
more looking than presets do: a preset's give way to the user's."""


def load_config(
    cls: type[S],
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> S:
    """A configuration from an optional file or preset and from flags; flags win.  A file may build on a preset.

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
        layers = read_layers(config) if config is not None else []
    except ConfigError as error:
        raise ConfigError("\n".join([*found, str(error)])) from None
    system = system or find_system(cls, {n: v for layer in reversed(layers) for n, v in layer.values.items()})
    values, preset = _layered(cls, layers, system, found, said)
    given = canonical_names(flags, cls.model_fields, found, meanings(system, cls.COMMAND), said)
    suggested = without_rivals(preset, {**values, **given})
    template = preset.get("instance_prompt")
    file = Path(layers[0].origin) if layers and not layers[0].is_preset else None
    given = _joined(system, values | given, found)
    if system is not None:
        defaults = _defaults(cls, system, suggested | given)
        said.append(_about(system, {**flags, **values}, defaults))
        suggested, given["like"] = defaults | suggested, system.name
    given = _by_accelerate(cls, suggested | given, found, said) | given
    suggested, note = settle_templates(suggested, given, template)
    said += [note] if note is not None else []
    return cls.from_mapping(suggested | given, suggested.keys() - given.keys(), found, file, said)


def _defaults(cls: type[Settings], system: System, given: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's defaults, but for what is given otherwise."""
    theirs = system.generates if cls.COMMAND == "generate" else system.defaults
    return {name: value for name, value in without_rivals(theirs, given).items() if name in cls.model_fields}


def _by_accelerate(
    cls: type[Settings], given: Mapping[str, Any], problems: list[str], notes: list[str]
) -> dict[str, Any]:
    """What accelerate's launcher asks for and nothing else gives."""
    asked, wrong = said_by_accelerate()
    problems += wrong
    asked = {name: value for name, value in asked.items() if name in cls.model_fields and name not in given}
    if asked:
        notes.append("accelerate: " + ", ".join(f"{name} {value}" for name, value in asked.items()))
    return asked


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


def _about(system: System, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """What is said of a trainer's defaults: why they are taken, and which."""
    own = [name for name in values if name in own_names(system)]
    why = "" if "like" in values or not own else f"{own[0]} is a name of {system.name}'s: "
    listed = ", ".join(f"{name} {value}" for name, value in defaults.items())
    return f"{why}names and defaults as --like {system.name}" + (f": {listed}" if listed else "")


def _layered(
    cls: type[Settings], layers: Sequence[Layer], system: System | None, problems: list[str], notes: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What files say, the first before the one that it builds on; and what their preset does."""
    values, preset = dict[str, Any](), dict[str, Any]()
    for layer in layers:
        known = _known_names(cls, layer, system, problems, notes)
        if layer.is_preset:
            preset = known
        else:
            values = without_rivals(known, values) | values
    return values, preset


def read_settings(config: str | Path) -> dict[str, Any]:
    """The settings of a file, of what it builds on, or of a preset, under the names that they are written by.

    Raises:
        ConfigError: as `read_layers`.
    """
    values = dict[str, Any]()
    for layer in read_layers(config):
        values = layer.values | values
    return values


def _known_names(
    cls: type[Settings], layer: Layer, system: System | None, problems: list[str], notes: list[str]
) -> dict[str, Any]:
    """The settings of a file or preset, by this library's names; `problems` receives those that are none."""
    wrong = list[str]()
    known = canonical_names(layer.values, cls.model_fields, wrong, meanings(system, cls.COMMAND), notes)
    parts = {name: v for name, v in known.items() if name in cls.model_fields or system is not None}
    unknown_names({name: v for name, v in known.items() if name not in parts}, cls.model_fields, wrong)
    if wrong and layer.is_preset:
        raise ConfigError(f"config: {layer.origin}: presets are for `dreambooth train`")
    problems += [f"config: {layer.origin}: {text}" for text in wrong]
    return parts
