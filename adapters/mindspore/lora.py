"""LoRA layers, and their factors under the names that core has settled.

The layers are our own: mindone's port of peft replaces whole modules by classes whose parameter names follow neither
peft nor the published files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, mint, nn, ops

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import DOWN, UP, factors_for

from .models import Weights


class LoraLayer(nn.Cell):
    """A layer and low-rank factors beside it: base(x) + scale · up(down(dropout(x))) (arXiv 2106.09685)."""

    def __init__(self, base: nn.Cell, rank: int, scale: float, dropout: float):
        super().__init__()
        self.base = base
        outputs, inputs = base.weight.shape[:2]
        if base.weight.ndim == 4:
            shape = {"kernel_size": base.kernel_size, "stride": base.stride, "padding": base.padding}
            self.down = mint.nn.Conv2d(inputs, rank, **shape, dilation=base.dilation, bias=False)
            self.up = mint.nn.Conv2d(rank, outputs, 1, bias=False)
        else:
            self.down = mint.nn.Linear(inputs, rank, bias=False)
            self.up = mint.nn.Linear(rank, outputs, bias=False)
        self._scale, self._dropout = scale, dropout

    def construct(self, x: Tensor) -> Tensor:
        kept = ops.dropout(x, self._dropout, True) if self._dropout > 0 and self.training else x
        return self.base(x) + self.up(self.down(kept)) * self._scale


def add_lora(network: nn.Cell, component: str, lora: Lora) -> Weights:
    """Give factors, in float32, to every layer that is to have them.

    Returns:
        The factors by COMPONENT.LAYER.lora_A.weight and .lora_B.weight.

    Raises:
        ConfigError: no layer has such a name, or one is of a kind that cannot have factors.
    """
    found: Weights = {}
    cells = _children(network)
    chosen = lora.chosen(component, (name for name, *_ in cells))
    for name, parent, key, base in cells:
        if name not in chosen:
            continue
        if not hasattr(base, "weight") or base.weight.ndim not in (2, 4) or isinstance(base, nn.Embedding):
            raise ConfigError(f"lora_layers: {name}: a {type(base).__name__} cannot have LoRA factors")
        layer = LoraLayer(base, lora.rank, lora.scale, lora.dropout)
        found |= {f"{component}.{name}{DOWN}": layer.down.weight, f"{component}.{name}{UP}": layer.up.weight}
        first = lora.first_down(component, name, layer.down.weight[0].size)
        layer.down.weight.set_data(Tensor(first.reshape(layer.down.weight.shape)))
        layer.up.weight.set_data(ops.zeros(layer.up.weight.shape, ms.float32))
        _replace(parent, key, layer)
    for name, factor in found.items():
        factor.name = name  # last of all: MindSpore renames what it puts into another cell
    return found


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


def fold(file: Path, weights: Mapping[str, Weights], scale: float) -> None:
    """Add a LoRA file to the weights of a model, by component: W + scale · alpha/rank · up · down.

    Raises:
        ConfigError: names or shapes that the model lacks.
    """
    kind = ".weight"
    there = {c: {n.removesuffix(kind): w.shape for n, w in s.items() if n.endswith(kind)} for c, s in weights.items()}
    for (component, layer), pair in factors_for(file, there).items():
        target = weights[component][f"{layer}{kind}"]
        product = pair.up.reshape(len(pair.up), -1).astype("f4") @ pair.down.reshape(len(pair.down), -1).astype("f4")
        ops.assign(target, target + Tensor(product.reshape(target.shape) * (scale * pair.scale)))
