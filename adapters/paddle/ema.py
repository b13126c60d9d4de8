"""The EMA of the trained weights."""

from __future__ import annotations

import paddle

from dreamcore.backends import ema
from dreamcore.formats.weights import Arrays

from .models import Named, arrays, fill, shapes


class EMA(ema.EMA[dict[str, paddle.Tensor]]):
    """Of Paddle's parameters."""

    def __init__(self, named: Named, decay: float):
        self._named = named
        super().__init__(decay)

    def copies(self) -> dict[str, paddle.Tensor]:
        return {name: p.detach().clone() for name, p in self._named.items()}

    @paddle.no_grad()
    def put(self, values: dict[str, paddle.Tensor]) -> None:
        for name, parameter in self._named.items():
            parameter.set_value(values[name])

    @paddle.no_grad()
    def mix(self, averages: dict[str, paddle.Tensor], share: float) -> dict[str, paddle.Tensor]:
        for name, mean in averages.items():
            mean.lerp_(self._named[name].detach(), share)
        return averages

    def to_arrays(self, values: dict[str, paddle.Tensor]) -> Arrays:
        return arrays(values)

    def from_arrays(self, arrays: Arrays) -> dict[str, paddle.Tensor]:
        made = self.copies()
        fill(made, arrays)
        return made

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes(self._named)
