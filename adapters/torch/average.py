"""The moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamcore.checkpoint import EMA_FILE
from dreamcore.errors import RunError

from .optim import Named


class MovingAverage:
    """Exponential moving average of the trained parameters, warmed up as min(decay, (1 + n) / (10 + n))."""

    def __init__(self, named: Named, decay: float):
        self._named, self._decay, self._updates = named, decay, 0
        self._averages = [p.detach().clone() for p in named.values()]

    def update(self) -> None:
        """Take in the parameters after an update."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._averages, [p.detach() for p in self._named.values()], 1 - decay)
        self._updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the parameters hold their averages for a while."""
        held = [p.detach().clone() for p in self._named.values()]
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(held)

    def save(self, folder: Path) -> None:
        """Write the averages."""
        tensors = {n: t.contiguous() for n, t in zip(self._named, self._averages, strict=True)}
        save_file(tensors, folder / EMA_FILE, metadata={"format": "pt", "updates": str(self._updates)})

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            RunError: averages that do not fit.
        """
        file = folder / EMA_FILE
        with safe_open(file, "pt") as opened:
            self._updates = int(opened.metadata()["updates"])
        tensors = load_file(file)
        if odd := sorted(tensors.keys() ^ self._named.keys()):
            raise RunError(f"{file}: does not fit what this run trains: {', '.join(odd[:5])}")
        for name, average in zip(self._named, self._averages, strict=True):
            average.copy_(tensors[name])

    @torch.no_grad()
    def _put(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._named.values(), values, strict=True):
            parameter.copy_(value)
