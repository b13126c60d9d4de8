"""LoRA layers, and their factors under the names that core has settled.

The layers are our own: mindone's port of peft replaces whole modules by classes whose parameter names follow neither
peft nor the published files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops

from dreamcore.checkpoint import LORA_FACTORS_FILE, LORA_FILE
from dreamcore.errors import ConfigError
from dreamcore.lora import DOWN, UP, initial_down, published_name

from .models import Weights, read_weights, restore_tensors, save_arrays

READ_ENDINGS = {
    DOWN: UP,
    ".lora.down.weight": ".lora.up.weight",
    ".lora_linear_layer.down.weight": ".lora_linear_layer.up.weight",
    "_lora.down.weight": "_lora.up.weight",
}
"""Ending of a down matrix in the files that diffusers and peft have written, and of its up matrix."""


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


def add_lora(
    network: nn.Cell,
    component: str,
    layers: Sequence[str],
    unused: tuple[str, ...],
    rank: int,
    alpha: float,
    dropout: float,
    seed: int,
) -> Weights:
    """Give factors, in float32, to every layer whose name ends in one of `layers`; returns them by name.

    Args:
        unused: beginnings of the published names of layers that are left as they are.

    Raises:
        ConfigError: no layer has such a name, or one is of a kind that cannot have factors.
    """
    found: Weights = {}
    endings = tuple(f".{layer}" for layer in layers)
    for name, parent, key, base in _children(network):
        if name.startswith(unused) or not f".{name}".endswith(endings):
            continue
        if not hasattr(base, "weight") or base.weight.ndim not in (2, 4) or isinstance(base, nn.Embedding):
            raise ConfigError(f"lora_layers: {name}: a {type(base).__name__} cannot have LoRA factors")
        layer = LoraLayer(base, rank, alpha / rank, dropout)
        found |= {f"{component}.{name}{DOWN}": layer.down.weight, f"{component}.{name}{UP}": layer.up.weight}
        first = initial_down(seed, f"{component}.{name}", rank, layer.down.weight[0].size)
        layer.down.weight.set_data(Tensor(first.reshape(layer.down.weight.shape)))
        layer.up.weight.set_data(ops.zeros(layer.up.weight.shape, ms.float32))
        _replace(parent, key, layer)
    if not found:
        raise ConfigError(f"lora_layers: {', '.join(layers)}: no layer of the {component} has such a name")
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


def save_published(factors: Weights, scale: float, folder: Path) -> None:
    """Write `LORA_FILE` with scale = alpha/rank folded into the up matrices: every reader gets the same picture."""
    arrays = {n: factor.asnumpy() * np.float32(scale if n.endswith(UP) else 1) for n, factor in factors.items()}
    save_arrays({published_name(n): array for n, array in arrays.items()}, folder / LORA_FILE)


def save_factors(factors: Weights, folder: Path) -> None:
    """Write the raw factors, to continue from."""
    save_arrays({name: factor.asnumpy() for name, factor in factors.items()}, folder / LORA_FACTORS_FILE)


def restore_factors(factors: Weights, folder: Path) -> None:
    """Load raw factors that any backend wrote.

    Raises:
        RunError: factors that are missing, left over or of another shape.
    """
    restore_tensors(factors, folder / LORA_FACTORS_FILE, "this run's LoRA")


def fold(file: Path, weights: Mapping[str, Weights], scale: float) -> None:
    """Add a LoRA file to the weights of a model, by component: W + scale · alpha/rank · up · down.

    Raises:
        ConfigError: names or shapes that the model lacks.
    """
    tensors = read_weights([file])
    pairs = {n: next((e for e in READ_ENDINGS if n.endswith(e)), None) for n in tensors}
    left = set(tensors)
    for name, ending in pairs.items():
        if ending is None:
            continue
        layer = name.removesuffix(ending).replace(".processor", "")
        target = _weight_of(layer, weights)
        up = tensors.get(name.removesuffix(ending) + READ_ENDINGS[ending])
        down = tensors[name]
        if target is None or up is None or (up.shape[0], *down.shape[1:]) != tuple(target.shape):
            raise ConfigError(f"lora: {file}: {name}: cannot be loaded into this model, which has no such layer")
        alpha_name = name.removesuffix(ending) + ".alpha"
        alpha = float(tensors[alpha_name]) if alpha_name in tensors else len(down)
        left -= {name, name.removesuffix(ending) + READ_ENDINGS[ending], alpha_name}
        product = up.reshape(len(up), -1).astype("f4") @ down.reshape(len(down), -1).astype("f4")
        change = Tensor(product.reshape(target.shape) * (scale * alpha / len(down)))
        ops.assign(target, target + change)
    if left:
        raise ConfigError(
            f"lora: {file}: {', '.join(sorted(left)[:5])}: cannot be loaded; expected the names of diffusers or peft"
        )


def _weight_of(layer: str, weights: Mapping[str, Weights]) -> Any:
    """The weight of a layer by its name in a LoRA file; an old one leaves out CLIP's prefix or `to_out`'s number."""
    component, _, path = layer.partition(".")
    named = weights.get(component, {})
    options = (path, f"text_model.{path}", f"{path}.0")
    return next((named[f"{option}.weight"] for option in options if f"{option}.weight" in named), None)
