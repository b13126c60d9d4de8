"""LoRA: factors beside Linear and Conv2D layers, under the names that core has settled.

ppdiffusers' own LoRA cannot write its files without PyTorch, so a layer of ten lines stands here in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from dreamcore.checkpoint import LORA_FACTORS_FILE, LORA_FILE
from dreamcore.errors import ConfigError, RunError
from dreamcore.lora import DOWN, UP, initial_down, published_name, read_lora
from dreamcore.weights import misfit, read_safetensors, write_safetensors

from .models import Named, published, published_shape, put


class Factors(nn.Layer):
    """Adds scale · up(down(dropout(x))) to a layer's answer (arXiv 2106.09685, section 4.1)."""

    def __init__(self, layer: nn.Layer, rank: int, scale: float, dropout: float):
        super().__init__()
        if isinstance(layer, nn.Linear):
            inputs, outputs = layer.weight.shape
            self.lora_A = nn.Linear(inputs, rank, bias_attr=False)
            self.lora_B = nn.Linear(rank, outputs, bias_attr=False)
        else:
            assert isinstance(layer, nn.Conv2D)
            outputs, inputs = layer.weight.shape[0], layer._in_channels
            shape = (layer._kernel_size, layer._stride, layer._padding, layer._dilation)
            self.lora_A = nn.Conv2D(inputs, rank, *shape, bias_attr=False)
            self.lora_B = nn.Conv2D(rank, outputs, 1, bias_attr=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scale = scale

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.lora_B(self.lora_A(self.dropout(x))) * self.scale


def add_lora(
    network: nn.Layer,
    component: str,
    layers: Sequence[str],
    unused: tuple[str, ...],
    rank: int,
    alpha: float,
    dropout: float,
    seed: int,
) -> dict[str, paddle.Tensor]:
    """Give factors, in float32, to every layer whose name ends in one of `layers`.

    Args:
        unused: beginnings of the published names of layers that are left as they are.

    Returns:
        The factors by COMPONENT.LAYER.lora_A.weight and .lora_B.weight.

    Raises:
        ConfigError: no layer has such a name, or one that has is neither Linear nor a convolution.
    """
    found: dict[str, paddle.Tensor] = {}
    for name, layer in list(network.named_sublayers()):
        if name.startswith(unused) or not any(name == ending or name.endswith(f".{ending}") for ending in layers):
            continue
        if not isinstance(layer, nn.Linear | nn.Conv2D):
            raise ConfigError(f"lora_layers: {name} is a {type(layer).__name__}; only Linear and Conv2D take factors")
        factors = _attach(layer, Factors(layer, rank, alpha / rank, dropout))
        down, up = f"{component}.{name}{DOWN}", f"{component}.{name}{UP}"
        found |= {down: factors.lora_A.weight, up: factors.lora_B.weight}
        shape = published_shape(down, factors.lora_A.weight)
        first = initial_down(seed, f"{component}.{name}", rank, int(np.prod(shape[1:])))
        put(down, factors.lora_A.weight, first.reshape(shape))
        factors.lora_B.weight.set_value(paddle.zeros_like(factors.lora_B.weight))
    if not found:
        raise ConfigError(f"lora_layers: {', '.join(layers)}: no layer of the {component} has such a name")
    return found


def _attach(layer: nn.Layer, factors: Factors) -> Factors:
    layer.add_sublayer("lora", factors)
    layer.register_forward_post_hook(lambda layer, inputs, answer: answer + factors(inputs[0]))
    return factors


def apply_file(networks: Mapping[str, nn.Layer], file: Path, scale: float) -> None:
    """Add a LoRA file of published names to networks, for sampling.

    Raises:
        ConfigError: names that no layer has, or factors of another shape.
    """
    for (component, name), pair in read_lora(file).items():
        layer = dict(networks[component].named_sublayers()).get(name) if component in networks else None
        if not isinstance(layer, nn.Linear | nn.Conv2D):
            raise ConfigError(f"lora: {file}: {component}.{name}: this model has no such layer")
        factors = Factors(layer, len(pair.down), scale * pair.scale, 0.0)
        for kind, weight, array in (
            (DOWN, factors.lora_A.weight, pair.down),
            (UP, factors.lora_B.weight, pair.up),
        ):
            if published_shape(kind, weight) != array.shape:
                raise ConfigError(f"lora: {file}: {component}.{name}: factors {array.shape} do not fit this model")
            put(kind, weight, array)
        factors.eval()
        _attach(layer, factors)


def save_published(factors: Named, scale: float, folder: Path) -> None:
    """Write `LORA_FILE` with scale = alpha/rank folded into the up matrices: every reader gets the same picture."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in factors.items():
        array = published(name, value)
        arrays[published_name(name)] = array * np.float32(scale) if name.endswith(UP) else array
    write_safetensors(folder / LORA_FILE, arrays)


def save_factors(factors: Named, folder: Path) -> None:
    """Write the raw factors, to continue from."""
    write_safetensors(folder / LORA_FACTORS_FILE, {name: published(name, value) for name, value in factors.items()})


def restore_factors(factors: Named, folder: Path) -> None:
    """Load raw factors that any backend wrote.

    Raises:
        RunError: factors that are missing, left over or of another shape.
    """
    file = folder / LORA_FACTORS_FILE
    stored = read_safetensors(file)
    if problem := misfit(stored, {name: published_shape(name, value) for name, value in factors.items()}):
        raise RunError(f"{file}: does not fit this run's LoRA: {problem}")
    for name, value in factors.items():
        put(name, value, stored[name])
