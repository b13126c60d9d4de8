"""LoRA layers, and their factors under the names that core has settled.

The layers are our own: mindone's port of peft replaces whole modules by classes whose parameter names follow neither
peft nor the published files.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, mint, nn, ops

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora_kinds import linear_answer, row_norms, whole_product
from dreamcore.formats.lora_raw import DOWN, MAGNITUDE, UP
from dreamcore.formats.weights import Arrays

from .models import Weights


class LoraLayer(nn.Cell):
    """A layer and low-rank factors beside it: base(x) + scale · up(down(dropout(x))) (arXiv 2106.09685).

    Args:
        dora: whether the lengths of the weight's rows train besides: g · (W x + scale · up(down(x))) + b, where
            g = m / ‖W + ΔW‖ counts as a constant but for m (arXiv 2402.09353, section 4.3).
    """

    def __init__(self, base: nn.Cell, rank: int, scale: float, dropout: float, *, dora: bool = False):
        super().__init__()
        self.base = base
        outputs, inputs = base.weight.shape[:2]
        ones = (1, 1) if base.weight.ndim == 4 else ()
        if ones:
            self.down = mint.nn.Conv2d(inputs, rank, base.kernel_size, **_form(base), bias=False)
            self.up = mint.nn.Conv2d(rank, outputs, 1, bias=False)
        else:
            self.down = mint.nn.Linear(inputs, rank, bias=False)
            self.up = mint.nn.Linear(rank, outputs, bias=False)
        self._scale, self._dropout, self.on, self._dora = scale, dropout, True, dora
        self._along = (-1, *ones)
        if dora:
            self.magnitude = ms.Parameter(ops.ones((1, outputs, *ones) if ones else (outputs,), ms.float32))
        self._bias = getattr(base, "bias", None) is not None

    def construct(self, x: Tensor) -> Tensor:
        if not self.on:
            return self.base(x)
        kept = ops.dropout(x, self._dropout, True) if self._dropout > 0 and self.training else x
        answer, more = self.base(x), self.up(self.down(kept)) * self._scale
        if not self._dora:
            return answer + more
        ratio = self.magnitude.reshape(self._along) / ops.stop_gradient(self._lengths()).reshape(self._along)
        own = self.base(kept) if self._dropout > 0 and self.training else answer
        if self._bias:
            own = own - self.base.bias.reshape(self._along)
        return answer + (ratio - 1) * own + ratio * more

    def _lengths(self) -> Tensor:
        """[out] of the rows of the changed weight."""
        down, up = self.down.weight, self.up.weight
        product = up.reshape(up.shape[0], -1) @ down.reshape(down.shape[0], -1)
        return row_norms(self.base.weight.reshape(product.shape) + self._scale * product)


class ProductLayer(nn.Cell):
    """A layer, and LoHa's or LoKr's product beside it, or that which PiSSA takes off.

    Args:
        factors: by the ends of their names.
        scale: by which its answer counts.
    """

    def __init__(self, base: nn.Cell, weight: ms.Parameter, factors: Arrays, scale: float, form: dict[str, Any] | None):
        super().__init__()
        self.base, self._scale, self.on, self._form = base, scale, True, form
        self._ends, self._shape = tuple(factors), tuple(weight.shape)
        for end, array in factors.items():
            setattr(self, end, ms.Parameter(Tensor(array), requires_grad=False))

    def construct(self, x: Tensor) -> Tensor:
        if not self.on:
            return self.base(x)
        factors = {end: getattr(self, end) for end in self._ends}
        if self._form is not None:
            weight = whole_product(factors, self._shape)
            return self.base(x) + self._scale * mint.nn.functional.conv2d(x, weight, None, **self._form)
        return self.base(x) + self._scale * linear_answer(x, factors)


def _form(layer: nn.Cell) -> dict[str, Any]:
    return {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}


def add_lora(network: nn.Cell, component: str, lora: Lora) -> Weights:
    """Give factors, in float32, to every layer that is to have them.

    Returns:
        The factors by COMPONENT.LAYER and the ends of `lora.first`.

    Raises:
        ConfigError: no layer has such a name, or one is of a kind that cannot have factors.
    """
    found: Weights = {}
    cells = _children(network)
    own = (name for name, *_, cell in cells if not isinstance(cell, nn.CellList))  # whose parts are named
    chosen = lora.chosen(component, own)
    for name, parent, key, base in cells:
        if name not in chosen:
            continue
        if not hasattr(base, "weight") or base.weight.ndim not in (2, 4) or isinstance(base, nn.Embedding):
            raise ConfigError(f"lora_layers: {name}: a {type(base).__name__} cannot have LoRA factors")
        first = lora.first(component, name, base.weight.shape, base.weight.asnumpy)
        layer, factors = _with_factors(base, first, lora)
        found |= {f"{component}.{name}{end}": factor for end, factor in factors.items()}
        _replace(parent, key, layer)
    for name, factor in found.items():
        factor.name = name  # last of all: MindSpore renames what it puts into another cell
    return found


def _with_factors(base: nn.Cell, first: Arrays, lora: Lora) -> tuple[nn.Cell, Weights]:
    """A layer with factors that begin so beside it, and them by the ends of their names."""
    layer, found = base, dict[str, ms.Parameter]()
    if DOWN in first:
        layer = LoraLayer(base, lora.rank, lora.scale, lora.dropout, dora=lora.dora)
        found = {DOWN: layer.down.weight, UP: layer.up.weight, **({MAGNITUDE: layer.magnitude} if lora.dora else {})}
        for end, factor in found.items():
            factor.set_data(Tensor(first[end]))
    more = {end.removeprefix("."): array for end, array in first.items() if end not in found}
    if more:
        scale = -lora.scale if found else lora.scale_beside(first)
        layer = ProductLayer(layer, base.weight, more, scale, _form(base) if base.weight.ndim == 4 else None)
        found |= {f".{end}": getattr(layer, end) for end in more}
    return layer, found


def switch(network: nn.Cell, *, on: bool) -> None:
    """Let a network's layers answer with the factors beside them, or without."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, LoraLayer | ProductLayer):
            cell.on = on


def _children(network: nn.Cell) -> list[tuple[str, nn.Cell, str, nn.Cell]]:
    """Name, parent, key in the parent, and the cell itself, of every cell below a network."""
    cells = dict(network.cells_and_names())
    parts = {name: name.rpartition(".") for name in cells if name}
    return [(name, cells[parent], key, cells[name]) for name, (parent, _, key) in parts.items()]


def _replace(parent: nn.Cell, key: str, cell: nn.Cell) -> None:
    if isinstance(parent, (nn.CellList, nn.SequentialCell)):
        parent[int(key)] = cell
    else:
        setattr(parent, key, cell)
