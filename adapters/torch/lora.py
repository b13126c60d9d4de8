"""LoRA through peft: layers, and their factors under the names that core has settled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import DOWN, UP, factors_for, refuse_other_kinds, understood
from dreamcore.formats.weights import Arrays, read_safetensors

from .models import Named, weight_prefix

ADAPTER, FILE = "default", "lora"
"""What peft calls the factors of a run, and those of a file."""


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
    """Add a LoRA file to networks, for sampling, through diffusers, which knows more trainers' names than core does.

    It leaves out what it finds no layer for, with a warning at most; so all is looked up before and after.

    Raises:
        ConfigError: names that are not understood or that no layer has, half a pair, or factors of another shape.
    """
    shapes = {
        component: {
            weight_prefix(network) + name: layer.weight.shape
            for name, layer in network.named_modules()
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        }
        for component, network in networks.items()
    }
    wanted = factors_for(file, shapes, _in_diffusers_names(pipeline, file, networks))
    tensors: dict[str, torch.Tensor] = {}
    for (component, layer), pair in wanted.items():
        up = pair.up.astype(np.float32) * np.float32(pair.scale)
        tensors |= {f"{component}.{layer}{DOWN}": torch.from_numpy(pair.down.astype(np.float32))}
        tensors |= {f"{component}.{layer}{UP}": torch.from_numpy(up)}
    with ExitStack() as undo:
        undo.callback(pipeline.unload_lora_weights)
        try:
            pipeline.load_lora_weights(tensors, adapter_name=FILE)
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            raise ConfigError(f"lora: {file}: cannot be loaded into this model: {error}") from None
        there = {
            (component, weight_prefix(network) + name)
            for component, network in networks.items()
            for name, layer in network.named_modules()
            if isinstance(layer, LoraLayer) and FILE in layer.lora_A
        }
        if left_out := sorted(wanted.keys() - there):
            raise ConfigError(f"lora: {file}: {'.'.join(left_out[0])}: diffusers loads no factors of this layer")
        pipeline.set_adapters([FILE], [scale])
        undo.pop_all()


def _in_diffusers_names(pipeline: Any, file: Path, networks: Mapping[str, Any]) -> Arrays:
    """What a file holds; where core does not know its names, as diffusers' reader sees it."""
    found = read_safetensors(file)
    refuse_other_kinds(file, found)  # of which that reader takes a part away
    if understood(found):
        return found
    tensors = {name: torch.from_numpy(array.copy()) for name, array in found.items()}
    blocks = {"unet_config": networks["unet"].config} if "unet" in networks else {}  # Kohya numbers SDXL's otherwise
    try:
        converted, alphas, *_ = pipeline.lora_state_dict(tensors, return_lora_metadata=True, **blocks)
    except (ValueError, RuntimeError, LookupError) as error:
        raise ConfigError(f"lora: {file}: diffusers cannot bring these names into its own: {error!r}") from None
    layers = {
        re.sub(r"[._]lora(_linear_layer)?\.down\.weight\.alpha$", ".alpha", n): a for n, a in (alphas or {}).items()
    }
    strengths = {name: np.array(float(alpha)) for name, alpha in layers.items()}
    return {name: tensor.numpy() for name, tensor in converted.items()} | strengths
