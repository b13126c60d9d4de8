"""LoRA: factors beside Linear and Conv2D layers, under the names that core has settled.

ppdiffusers' own LoRA cannot write its files without PyTorch, so a layer of ten lines stands here in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import DOWN, UP, factors_for

from .models import published_shape, put


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


def add_lora(network: nn.Layer, component: str, lora: Lora) -> dict[str, paddle.Tensor]:
    """Give factors, in float32, to every layer that is to have them.

    Returns:
        The factors by COMPONENT.LAYER.lora_A.weight and .lora_B.weight.

    Raises:
        ConfigError: no layer has such a name, or one that has is neither Linear nor a convolution.
    """
    found: dict[str, paddle.Tensor] = {}
    layers = dict(network.named_sublayers())
    chosen = lora.chosen(component, layers)
    for name, layer in layers.items():
        if name not in chosen:
            continue
        if not isinstance(layer, nn.Linear | nn.Conv2D):
            raise ConfigError(f"lora_layers: {name} is a {type(layer).__name__}; only Linear and Conv2D take factors")
        factors = _attach(layer, Factors(layer, lora.rank, lora.scale, lora.dropout))
        down, up = f"{component}.{name}{DOWN}", f"{component}.{name}{UP}"
        found |= {down: factors.lora_A.weight, up: factors.lora_B.weight}
        shape = published_shape(down, factors.lora_A.weight)
        put(down, factors.lora_A.weight, lora.first_down(component, name, int(np.prod(shape[1:]))).reshape(shape))
        factors.lora_B.weight.set_value(paddle.zeros_like(factors.lora_B.weight))
    return found


def _attach(layer: nn.Layer, factors: Factors, name: str = "lora") -> Factors:
    """Let a layer add the answer of factors to its own, and to that of others which it has already."""
    layer.add_sublayer(name, factors)
    layer.register_forward_post_hook(lambda layer, inputs, answer: answer + factors(inputs[0]))
    return factors


def apply_file(networks: Mapping[str, nn.Layer], file: Path, scale: float) -> None:
    """Add a LoRA file to networks, for sampling.

    Raises:
        ConfigError: names that no layer has, or factors of another shape.
    """
    layers = {
        component: {n: layer for n, layer in network.named_sublayers() if isinstance(layer, nn.Linear | nn.Conv2D)}
        for component, network in networks.items()
    }
    shapes = {
        component: {n: published_shape(f"{n}.weight", layer.weight) for n, layer in named.items()}
        for component, named in layers.items()
    }
    for (component, name), pair in factors_for(file, shapes).items():
        layer = layers[component][name]
        factors = Factors(layer, len(pair.down), scale * pair.scale, 0.0)
        put(DOWN, factors.lora_A.weight, pair.down)
        put(UP, factors.lora_B.weight, pair.up)
        factors.eval()
        _attach(layer, factors, f"lora_{len(list(layer.children()))}")
