"""What a model may have that a backend cannot load, in the same words on all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..formats.weights import Arrays, known_names, misfit, problem_in_words
from ..models.folder import ModelFolder


def network_class(model: ModelFolder, name: str, library: Any) -> Any:
    """The class that the model's index names for a network.

    Args:
        library: the module that has it; None where the index names a library that is not known.

    Raises:
        ConfigError: it has none of that name.
    """
    cls = getattr(library, model.class_name(name), None)
    if cls is None:
        lacks = f"{library.__name__} lacks" if library else "is not known here"
        raise ConfigError(f"{model.path}: {name} is a {'.'.join(model.index[name])}, which {lacks}")
    return cls


def fitting(arrays: Arrays, shapes: Mapping[str, Sequence[int]], file: Path, class_name: str) -> Arrays:
    """Arrays of a file under the names of a network's weights.

    Raises:
        ConfigError: arrays that are missing, left over or of another shape.
    """
    arrays = known_names(arrays, shapes)
    if problem := misfit(arrays, shapes, class_name):
        raise ConfigError(f"{file}: {problem}")
    return arrays


def refuse_problems(problems: Mapping[str, Iterable[str]], file: Path, class_name: str) -> None:
    """Raise ConfigError as `fitting` does, of what a library reports: kind of problem -> names of weights."""
    if problem := problem_in_words(problems, class_name):
        raise ConfigError(f"{file}: {problem}")
