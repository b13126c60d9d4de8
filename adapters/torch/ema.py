"""The EMA of the trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from dreamcore.backends import ema
from dreamcore.formats.weights import Arrays

from .models import Named


class EMA(ema.EMA[list[torch.Tensor]]):
    """Of PyTorch's parameters."""

    def __init__(self, named: Named, decay: float, changed: Callable[[], None] = lambda: None):
        """`changed` is called when the parameters have been given other values."""
        self._named, self._changed = named, changed
        super().__init__(decay)

    def copies(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self._named.values()]

    @torch.no_grad()
    def put(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._named.values(), values, strict=True):
            parameter.copy_(value)
        self._changed()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages and the parameters change places, one by one, so that no third copy of them is there."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, average in zip(self._named.values(), self._averages, strict=True):
            aside = parameter.clone()
            parameter.copy_(average)
            average.copy_(aside)
        self._changed()

    def mix(self, averages: list[torch.Tensor], share: float) -> list[torch.Tensor]:
        torch._foreach_lerp_(averages, [p.detach() for p in self._named.values()], share)
        return averages

    def to_arrays(self, values: list[torch.Tensor]) -> Arrays:
        return {name: value.cpu().numpy() for name, value in zip(self._named, values, strict=True)}

    def from_arrays(self, arrays: Arrays) -> list[torch.Tensor]:
        made = [torch.empty_like(p, requires_grad=False) for p in self._named.values()]
        for value, name in zip(made, self._named, strict=True):  # in the weight's own layout and place
            value.copy_(torch.from_numpy(arrays[name].copy()))
        return made

    def shapes(self) -> Mapping[str, Sequence[int]]:
        return {name: parameter.shape for name, parameter in self._named.items()}
