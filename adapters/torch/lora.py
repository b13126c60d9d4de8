"""LoRA through peft: layers, and their factors under the names that core has settled."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from dreamcore.errors import ConfigError
from dreamcore.lora import DOWN, UP, Lora, read_factors
from dreamcore.weights import Arrays

from .models import weight_prefix
from .optim import Named

ADAPTER = "default"


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


def arrays(factors: Named) -> Arrays:
    """Factors as files hold them."""
    return {name: factor.detach().cpu().numpy() for name, factor in factors.items()}


def restore_factors(factors: Named, folder: Path) -> None:
    """Load raw factors that any backend wrote.

    Raises:
        RunError: factors that are missing, left over or of another shape.
    """
    stored = read_factors(folder, {name: factor.shape for name, factor in factors.items()})
    with torch.no_grad():
        for name, factor in factors.items():
            factor.copy_(torch.from_numpy(stored[name].copy()))
