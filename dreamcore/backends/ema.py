"""The exponential moving average of the trained weights; a backend says how its own tensors are copied and mixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from ..formats.weights import Arrays, read_exactly, read_metadata, write_safetensors
from ..io.names import EMA_FILE

Tensors = TypeVar("Tensors")


class EMA(ABC, Generic[Tensors]):
    """Exponential moving average of the trained parameters, warmed up as min(decay, (1 + n) / (10 + n))."""

    def __init__(self, decay: float):
        self._decay, self._updates = decay, 0
        self._averages = self.copies()

    @abstractmethod
    def copies(self) -> Tensors:
        """Copies of the parameters."""

    @abstractmethod
    def put(self, values: Tensors) -> None:
        """Let the parameters hold these values."""

    @abstractmethod
    def mix(self, averages: Tensors, share: float) -> Tensors:
        """The averages, and a share of how far the parameters lie from them."""

    @abstractmethod
    def to_arrays(self, values: Tensors) -> Arrays:
        """By published names, as files hold them."""

    @abstractmethod
    def from_arrays(self, arrays: Arrays) -> Tensors:
        """`to_arrays` undone."""

    @abstractmethod
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """Of the parameters as files hold them."""

    def update(self) -> None:
        """Take in the parameters after an update."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._averages = self.mix(self._averages, 1 - decay)
        self._updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the parameters hold their averages for a while."""
        held = self.copies()
        try:
            self.put(self._averages)
            yield
        finally:
            self.put(held)

    def save(self, folder: Path) -> None:
        """Write the averages."""
        write_safetensors(folder / EMA_FILE, self.to_arrays(self._averages), {"updates": str(self._updates)})

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            RunError: averages that do not fit.
        """
        arrays = read_exactly(folder / EMA_FILE, self.shapes(), "what this run trains")
        self._updates = int(read_metadata(folder / EMA_FILE)["updates"])
        del self._averages  # they need not fit onto the device twice
        self._averages = self.from_arrays(arrays)
