"""LoRA through peft: layers, and their factors under the names that core has settled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import DOWN, UP, Pair, factors_for
from dreamcore.formats.lora_kinds import linear_answer, whole_product
from dreamcore.formats.lora_raw import MAGNITUDE

from .models import Named, weight_prefix

ADAPTER, FILE, PRODUCT = "default", "lora", "product"
"""What peft calls the factors of a run, and, with a number, those of a file; what is beside a layer without peft."""


class Beside(torch.nn.Module):
    """What a layer answers besides, where peft has none of it: LoHa's or LoKr's product, or what PiSSA takes off.

    Args:
        factors: by the ends of their names.
        scale: by which the answer counts.
    """

    def __init__(self, layer: torch.nn.Module, factors: Mapping[str, torch.nn.Parameter], scale: float):
        super().__init__()
        self.factors, self.scale, self.on = torch.nn.ParameterDict(dict(factors)), scale, True
        self._shape, self._form = tuple(layer.weight.shape), {}
        if len(self._shape) == 4:
            layer = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
            self._form = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._form:
            return self.scale * torch.nn.functional.conv2d(x, whole_product(self.factors, self._shape), **self._form)
        return self.scale * linear_answer(x, self.factors)


def add_lora(network: torch.nn.Module, component: str, lora: Lora) -> Named:
    """Give factors, in float32, to every layer that is to have them.

    Returns:
        The factors under COMPONENT.LAYER and the ends of `lora.first`, layers by their published names.

    Raises:
        ConfigError: no layer has such a name, or one is of a kind that cannot have factors.
    """
    prefix, layers = weight_prefix(network), dict(network.named_modules())
    parts = (name for name, layer in layers.items() if not isinstance(layer, torch.nn.ModuleList))  # which are named
    chosen = lora.chosen(component, (prefix + name for name in parts))
    names = [name for name in layers if prefix + name in chosen]
    if wrong := [n for n in names if not isinstance(layers[n], torch.nn.Linear | torch.nn.Conv2d)]:
        kind = type(layers[wrong[0]]).__name__
        raise ConfigError(f"lora_layers: {wrong[0]}: a {kind} cannot have LoRA factors; a Linear or Conv2d can")
    first = {name: lora.first(component, prefix + name, *_weight_of(layers[name])) for name in names}
    found = dict[str, torch.nn.Parameter]()
    if lora.method in ("lora", "pissa"):
        _add_through_peft(network, names, lora)
    for name, module in network.named_modules():
        if name not in first:
            continue
        own = _factors_of(module) if isinstance(module, LoraLayer) else {}
        device = module.weight.device
        rest = {end: torch.from_numpy(array).to(device) for end, array in first[name].items() if end not in own}
        more = {end: torch.nn.Parameter(value, requires_grad=False) for end, value in rest.items()}
        if more:
            scale = -lora.scale if own else lora.scale_beside(more)
            _attach(module, {end.removeprefix("."): factor for end, factor in more.items()}, scale)
        with torch.no_grad():
            for end, factor in own.items():
                factor.copy_(torch.from_numpy(first[name][end]).view_as(factor))
        found |= {f"{component}.{prefix}{name}{end}": factor for end, factor in (own | more).items()}
    return found


def _add_through_peft(network: torch.nn.Module, names: list[str], lora: Lora) -> None:
    """Let peft put its layers around those of these names."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        target_modules="|".join(map(re.escape, names)),
    )
    network.add_adapter(config, adapter_name=ADAPTER)


def _factors_of(layer: LoraLayer) -> dict[str, torch.nn.Parameter]:
    """Of a layer of peft's, in float32, by the ends of their names."""
    found = {DOWN: layer.lora_A[ADAPTER].float().weight, UP: layer.lora_B[ADAPTER].float().weight}
    if ADAPTER in layer.lora_magnitude_vector:
        found[MAGNITUDE] = layer.lora_magnitude_vector[ADAPTER].float().weight
    return found


def _attach(layer: torch.nn.Module, factors: Named, scale: float) -> None:
    """Let a layer add to its answer what factors answer."""
    beside = Beside(layer, factors, scale)
    layer.add_module(PRODUCT, beside)
    layer.register_forward_hook(lambda _, given, answer: answer + beside(given[0]) if beside.on else answer)


def _weight_of(layer: torch.nn.Module) -> tuple[Sequence[int], Callable[[], NDArray[np.float32]]]:
    """The shape of a layer's weight, and what reads it."""
    weight: Any = layer.weight
    return tuple(weight.shape), lambda: weight.detach().float().cpu().numpy()


def switch(network: torch.nn.Module, *, on: bool) -> None:
    """Let a network's layers answer with the factors beside them, or without."""
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(on)
        elif isinstance(layer, Beside):
            layer.on = on


def apply_file(pipeline: Any, networks: Mapping[str, Any], file: Path, scale: float) -> None:
    """Add a LoRA file to networks, for sampling, beside others, through diffusers.

    It leaves out what it finds no layer for, with a warning at most; so all is looked up before and after.

    Raises:
        ConfigError: names that are not understood or that no layer has, half a pair, or factors of another shape.
    """
    shapes = {component: _shapes(network) for component, network in networks.items()}
    others = sorted({name for network in networks.values() for name in getattr(network, "peft_config", {})})
    adapter = f"{FILE}{len(others)}"
    wanted = factors_for(file, shapes)
    unknown = {name for name, network in networks.items() if isinstance(network, transformers.BertModel)}
    tensors: dict[str, torch.Tensor] = {}
    for (component, layer), pair in wanted.items():
        if component in unknown:
            continue
        up = pair.up.astype(np.float32) * np.float32(pair.scale * scale)
        tensors |= {f"{component}.{layer}{DOWN}": torch.from_numpy(pair.down.astype(np.float32))}
        tensors |= {f"{component}.{layer}{UP}": torch.from_numpy(up)}
    with ExitStack() as undo:
        undo.callback(pipeline.unload_lora_weights)
        try:
            for name in unknown:
                _insert(networks[name], adapter, {x: pair for (c, x), pair in wanted.items() if c == name}, scale)
            if tensors:
                pipeline.load_lora_weights(tensors, adapter_name=adapter)
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            raise ConfigError(f"lora: {file}: cannot be loaded into this model: {error}") from None
        there = {
            (component, weight_prefix(network) + name)
            for component, network in networks.items()
            for name, layer in network.named_modules()
            if isinstance(layer, LoraLayer) and adapter in layer.lora_A
        }
        if left_out := sorted(wanted.keys() - there):
            raise ConfigError(f"lora: {file}: {'.'.join(left_out[0])}: diffusers loads no factors of this layer")
        pipeline.set_adapters([*others, adapter])
        undo.pop_all()


def _insert(network: Any, adapter: str, pairs: Mapping[str, Pair], scale: float) -> None:
    """Give factors to layers of a text encoder whose names diffusers' reader does not know: it has CLIP's alone."""
    if not pairs:
        return
    ranks = {layer: len(pair.down) for layer, pair in pairs.items()}
    config = LoraConfig(rank_pattern=ranks, alpha_pattern=ranks, target_modules=list(pairs))
    network.add_adapter(config, adapter_name=adapter)
    layers = dict(network.named_modules())
    for name, pair in pairs.items():
        for factors, array in ((layers[name].lora_A, pair.down), (layers[name].lora_B, pair.up * (pair.scale * scale))):
            weight = factors[adapter].weight
            weight.data.copy_(torch.from_numpy(array.astype(np.float32)).view_as(weight))


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    """Of the weights that a network has itself, by its layers' published names; not those of factors beside them."""
    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and not {"lora_A", "lora_B"} & {*name.split(".")}:
            found[weight_prefix(network) + name.removesuffix(".base_layer")] = layer.weight.shape
    return found
