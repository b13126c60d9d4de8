"""LoRA through peft: layers, and their factors under the names that core has settled."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import DOWN, UP, Pair, factors_for

from .models import Named, weight_prefix

ADAPTER, FILE = "default", "lora"
"""What peft calls the factors of a run, and, with a number, those of a file."""


def add_lora(network: torch.nn.Module, component: str, lora: Lora) -> Named:
    """Give factors, in float32, to every layer that is to have them.

    Returns:
        The factors under COMPONENT.LAYER.lora_A.weight and .lora_B.weight, layers by their published names.

    Raises:
        ConfigError: no layer has such a name.
    """
    prefix, unused, endings = weight_prefix(network), lora.unused[component], lora.endings[component]
    idle = [name for name, _ in network.named_modules() if (prefix + name).startswith(unused)] if unused else None
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(endings),
        exclude_modules=idle,
    )
    try:
        network.add_adapter(config, adapter_name=ADAPTER)
    except ValueError as error:
        raise ConfigError(f"lora_layers: {', '.join(endings)}: {error}") from None
    found: dict[str, torch.nn.Parameter] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer) and ADAPTER in layer.lora_A:
            down, up = layer.lora_A[ADAPTER].float().weight, layer.lora_B[ADAPTER].float().weight
            first = lora.first_down(component, prefix + name, down[0].numel())
            with torch.no_grad():
                down.copy_(torch.from_numpy(first).view_as(down))
                up.zero_()
            found |= {f"{component}.{prefix}{name}{DOWN}": down, f"{component}.{prefix}{name}{UP}": up}
    return found


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
