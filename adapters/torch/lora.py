"""LoRA through peft: adding factors, reading and writing them under the names that core has settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from dreamcore.checkpoint import LORA_FACTORS_FILE, LORA_FILE
from dreamcore.errors import ConfigError, RunError
from dreamcore.lora import DOWN, UP, initial_down, published_name

from .models import weight_prefix

ADAPTER = "default"


def add_lora(
    network: torch.nn.Module,
    component: str,
    layers: Sequence[str],
    unused: tuple[str, ...],
    rank: int,
    alpha: float,
    dropout: float,
    seed: int,
) -> None:
    """Give factors, in float32, to every layer whose name ends in one of `layers`.

    Args:
        unused: beginnings of the published names of layers that are left as they are.

    Raises:
        ConfigError: no layer has such a name.
    """
    prefix = weight_prefix(network)
    idle = [name for name, _ in network.named_modules() if (prefix + name).startswith(unused)] if unused else None
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(layers), exclude_modules=idle
    )
    try:
        network.add_adapter(config, adapter_name=ADAPTER)
    except ValueError as error:
        raise ConfigError(f"lora_layers: {', '.join(layers)}: {error}") from None
    for name, layer in _lora_layers(network):
        down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        first = initial_down(seed, f"{component}.{name}", rank, down.weight[0].numel())
        with torch.no_grad():
            down.float().weight.copy_(torch.from_numpy(first).view_as(down.weight))
            up.float().weight.zero_()


def factors(networks: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    """All factors under COMPONENT.LAYER.lora_A.weight and .lora_B.weight, layers by their published names."""
    found = {}
    for component, network in networks.items():
        for name, layer in _lora_layers(network):
            found[f"{component}.{name}{DOWN}"] = layer.lora_A[ADAPTER].weight
            found[f"{component}.{name}{UP}"] = layer.lora_B[ADAPTER].weight
    return found


def save_published(networks: Mapping[str, torch.nn.Module], scale: float, folder: Path) -> None:
    """Write `LORA_FILE` with scale = alpha/rank folded into the up matrices: every reader gets the same picture."""
    tensors = {
        published_name(name): (value.detach() * scale if name.endswith(UP) else value.detach()).contiguous()
        for name, value in factors(networks).items()
    }
    save_file(tensors, folder / LORA_FILE, metadata={"format": "pt"})


def save_factors(networks: Mapping[str, torch.nn.Module], folder: Path) -> None:
    """Write the raw factors, to continue from."""
    tensors = {name: value.detach().contiguous() for name, value in factors(networks).items()}
    save_file(tensors, folder / LORA_FACTORS_FILE, metadata={"format": "pt"})


def restore_factors(networks: Mapping[str, torch.nn.Module], folder: Path) -> None:
    """Load raw factors that any backend wrote.

    Raises:
        RunError: factors that are missing, left over or of another shape.
    """
    stored, mine = load_file(folder / LORA_FACTORS_FILE), factors(networks)
    odd = sorted(stored.keys() ^ mine.keys()) or [n for n, p in mine.items() if p.shape != stored[n].shape]
    if odd:
        raise RunError(f"{folder / LORA_FACTORS_FILE}: does not fit this run's LoRA: {', '.join(odd[:5])}")
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(stored[name])


def _lora_layers(network: torch.nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    prefix = weight_prefix(network)
    for name, module in network.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A:
            yield prefix + name, module
