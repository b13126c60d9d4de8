"""LoRA: factors beside Linear and Conv2D layers, under the names that core has settled.

ppdiffusers' own LoRA cannot write its files without PyTorch, so a layer of ten lines stands here in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import DOWN, UP, factors_for
from dreamcore.formats.lora_kinds import linear_answer, row_norms, whole_product
from dreamcore.formats.lora_raw import MAGNITUDE
from dreamcore.formats.weights import Arrays

from .models import published, published_shape, put

L = TypeVar("L", bound="Factors | Beside")


class Factors(nn.Layer):
    """Adds scale · up(down(dropout(x))) to a layer's answer (arXiv 2106.09685, section 4.1).

    Args:
        dora: whether the lengths of the weight's rows train besides.
    """

    def __init__(self, layer: nn.Layer, rank: int, scale: float, dropout: float, *, dora: bool = False):
        super().__init__()
        if isinstance(layer, nn.Linear):
            inputs, outputs = layer.weight.shape
            self.lora_A = nn.Linear(inputs, rank, bias_attr=False)
            self.lora_B = nn.Linear(rank, outputs, bias_attr=False)
        else:
            assert isinstance(layer, nn.Conv2D)
            outputs, inputs = layer.weight.shape[0], layer._in_channels
            self.lora_A = nn.Conv2D(inputs, rank, layer._kernel_size, **_form(layer), bias_attr=False)
            self.lora_B = nn.Conv2D(rank, outputs, 1, bias_attr=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scale = scale
        ones = [1, 1] if isinstance(layer, nn.Conv2D) else []
        self.magnitude = self.create_parameter([1, outputs, *ones] if ones else [outputs]) if dora else None
        self.on = True
        """Whether they are added."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.lora_B(self.lora_A(self.dropout(x))) * self.scale

    def changed(self, layer: nn.Layer, x: paddle.Tensor, answer: paddle.Tensor) -> paddle.Tensor:
        """A layer's answer with theirs; of DoRA g · (W x + scale · up(down(x))) + b, where g = m / ‖W + ΔW‖ counts as a
        constant but for m (arXiv 2402.09353, section 4.3)."""
        if self.magnitude is None:
            return answer + self(x)
        ones = [1, 1] if isinstance(layer, nn.Conv2D) else []
        x = self.dropout(x)
        ratio = self.magnitude.reshape([-1, *ones]) / self._lengths(layer).reshape([-1, *ones])
        if isinstance(self.dropout, nn.Dropout) and self.training:
            own = F.conv2d(x, layer.weight, None, **_form(layer)) if ones else F.linear(x, layer.weight)
        else:
            own = answer if layer.bias is None else answer - layer.bias.reshape([-1, *ones])
        return answer + (ratio - 1) * own + ratio * self.lora_B(self.lora_A(x)) * self.scale

    @paddle.no_grad()
    def _lengths(self, layer: nn.Layer) -> paddle.Tensor:
        """[out] of the rows of the changed weight."""
        down, up, weight = self.lora_A.weight, self.lora_B.weight, layer.weight.cast("float32")
        with paddle.amp.auto_cast(enable=False):
            if isinstance(layer, nn.Linear):  # whose weights stand the other way round
                return row_norms((weight + self.scale * (down @ up)).T)
            product = up.reshape([up.shape[0], -1]) @ down.reshape([down.shape[0], -1])
            return row_norms(weight.reshape(product.shape) + self.scale * product)


class Beside(nn.Layer):
    """Adds to a layer's answer that of LoHa's or LoKr's product, or takes off PiSSA's.

    Args:
        factors: by the ends of their names.
        scale: by which the answer counts.
    """

    def __init__(self, layer: nn.Layer, factors: Arrays, scale: float):
        super().__init__()
        self.ends = tuple(factors)
        for end, array in factors.items():
            setattr(self, end, self.create_parameter(list(array.shape)))
            getattr(self, end).set_value(np.ascontiguousarray(array))
            getattr(self, end).stop_gradient = True
        self._shape, self._form = layer.weight.shape, _form(layer) if isinstance(layer, nn.Conv2D) else None
        self.scale, self.on = scale, True

    def changed(self, layer: nn.Layer, x: paddle.Tensor, answer: paddle.Tensor) -> paddle.Tensor:
        factors = {end: getattr(self, end) for end in self.ends}
        if self._form is not None:
            return answer + self.scale * F.conv2d(x, whole_product(factors, self._shape), None, **self._form)
        return answer + self.scale * linear_answer(x, factors)


def _form(layer: nn.Conv2D) -> dict[str, Any]:
    return {"stride": layer._stride, "padding": layer._padding, "dilation": layer._dilation}


def add_lora(network: nn.Layer, component: str, lora: Lora) -> dict[str, paddle.Tensor]:
    """Give factors, in float32, to every layer that is to have them.

    Returns:
        The factors by COMPONENT.LAYER and the ends of `lora.first`.

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
        kernel, weight = f"{name}.weight", layer.weight
        shape = published_shape(kernel, weight)
        first = lora.first(component, name, shape, partial(published, kernel, weight))
        found |= {f"{component}.{name}{end}": factor for end, factor in _give(layer, first, lora).items()}
    return found


def _give(layer: nn.Layer, first: Arrays, lora: Lora) -> dict[str, paddle.Tensor]:
    """Put factors that begin so beside a layer; returns them by the ends of their names."""
    found: dict[str, paddle.Tensor] = {}
    if DOWN in first:
        factors = _attach(layer, Factors(layer, lora.rank, lora.scale, lora.dropout, dora=lora.dora))
        found |= {DOWN: factors.lora_A.weight, UP: factors.lora_B.weight}
        found |= {} if factors.magnitude is None else {MAGNITUDE: factors.magnitude}
        for end, factor in found.items():
            put(end, factor, first[end])
    more = {end.removeprefix("."): array for end, array in first.items() if end not in found}
    if more:
        beside = Beside(layer, more, -lora.scale if found else lora.scale_beside(first))
        _attach(layer, beside, "product")
        found |= {f".{end}": getattr(beside, end) for end in more}
    return found


def _attach(layer: nn.Layer, factors: L, name: str = "lora") -> L:
    """Let a layer add the answer of factors to its own, and to that of others which it has already."""
    layer.add_sublayer(name, factors)
    layer.register_forward_post_hook(
        lambda layer, inputs, answer: factors.changed(layer, inputs[0], answer) if factors.on else answer
    )
    return factors


def switch(network: nn.Layer, *, on: bool) -> None:
    """Let a network's layers answer with the factors beside them, or without."""
    for layer in network.sublayers():
        if isinstance(layer, Factors | Beside):
            layer.on = on


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
