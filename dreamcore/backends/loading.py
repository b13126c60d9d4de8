"""Weights on their way into networks: they come when a component's turn comes, in the type that they are used in, and
go when it has ended.

A network is built without any, and what its files say of names and shapes is compared with it then: so a model that
does not fit is refused at once, in the same words by every backend, and the network itself stays who it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..config.common import Quantization
from ..errors import ConfigError
from ..formats.weights import Shaped, known_names, misfit
from ..io.progress import progress
from ..io.system import give_back_memory
from ..models.folder import ModelFolder
from .out_of_memory import LOADING, during

W = TypeVar("W", bound=Shaped)


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


def fitting(arrays: Mapping[str, W], shapes: Mapping[str, Sequence[int]], file: Path, class_name: str) -> dict[str, W]:
    """Arrays of a file, or what will be arrays, under the names of a network's weights.

    Raises:
        ConfigError: arrays that are missing, left over or of another shape.
    """
    found = known_names(arrays, shapes)
    if problem := misfit(found, shapes, class_name):
        raise ConfigError(f"{file}: {problem}")
    return found


class Component(ABC):
    """A network whose weights are not there until `fill`.

    Args:
        network: its shapes and types are those of its weights even so.
        dtype: in which its weights come.
    """

    def __init__(self, network: Any, dtype: Any):
        self.network, self.dtype = network, dtype

    @abstractmethod
    def hold(self, dtype: Any) -> None:
        """Let weights come in this type from now on; those that are there go."""

    def quantize(self, method: Quantization) -> None:
        """Keep the weights that `quantization.quantised` chooses in fewer bits; before any came.

        Raises:
            ConfigError: this backend cannot.
        """
        raise ConfigError(f"quantize_base: {method}: this backend keeps no weights in fewer bits; use --backend torch")

    @abstractmethod
    def fill(self) -> int:
        """Read the weights from their files onto the device; returns their bytes."""

    @abstractmethod
    def empty(self) -> None:
        """Let them go."""


class Residence:
    """The components of a model: whose weights are there, and how many bytes they take.

    Args:
        components: by name.
        move: brings a network onto the device, or takes it away from there, where the framework can.
    """

    def __init__(self, components: Mapping[str, Component], move: Callable[..., None]):
        self.components = dict(components)
        self.bytes: dict[str, int] = {}
        """Of the components that are there."""
        self.changed = set[str]()
        """Components whose weights no file can bring back, as they train or have taken in a LoRA: they stay."""
        self._move = move
        self._away = set[str]()

    def come(self, name: str) -> None:
        """A component's weights are needed on the device."""
        if name not in self.bytes:
            with during(LOADING), progress(f"loading {name}"):
                self.bytes[name] = self.components[name].fill()
            give_back_memory()
        elif name in self._away:
            self._move(self.components[name].network)
            self._away.discard(name)

    def leave(self, name: str) -> None:
        """They are not, for now."""
        if name not in self.bytes or name in self._away:
            return
        if name in self.changed:
            self._move(self.components[name].network, away=True)
            self._away.add(name)
            return
        self.components[name].empty()
        del self.bytes[name]
        give_back_memory()

    def hold(self, name: str, dtype: Any) -> None:
        """Let a component's weights come in this type; for one that has not changed."""
        if self.components[name].dtype != dtype:
            self.components[name].hold(dtype)
            self.bytes.pop(name, None)
