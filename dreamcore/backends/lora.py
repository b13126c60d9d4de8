"""LoRA as a run has it: which layers get factors, of what rank, from which first values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..diffusion.randomness import lora_factor
from ..errors import ConfigError
from ..models.folder import ModelFolder


@dataclass(frozen=True)
class Lora:
    """What a run's settings come to: which layers get factors, of what rank, and how much they count."""

    rank: int
    alpha: float
    dropout: float
    seed: int
    endings: Mapping[str, tuple[str, ...]]
    """Component -> endings of the names of its layers that get factors."""
    unused: Mapping[str, tuple[str, ...]]
    """Component -> beginnings of the published names of layers that are left as they are."""

    @classmethod
    def of(cls, config: TrainConfig, model: ModelFolder) -> Lora:
        """From the settings and the model's family.

        Raises:
            ConfigError: a transformer block that the model has not.
        """
        alpha = config.lora_alpha if config.lora_alpha is not None else float(config.rank)
        endings = {encoder.network: encoder.lora_layers for encoder in model.text_encoders}
        layers = tuple(config.lora_layers or model.family.lora_layers)
        blocks = config.lora_blocks if model.schedule.prediction == "flow" else None  # of transformers
        endings |= {model.family.denoiser: layers if blocks is None else _in_blocks(blocks, layers, model)}
        unused = {name: model.unused(name) for name in endings}
        return cls(config.rank, alpha, config.lora_dropout, config.seed, endings, unused)

    @property
    def scale(self) -> float:
        """By which the factors' product counts."""
        return self.alpha / self.rank

    def chosen(self, component: str, names: Iterable[str]) -> set[str]:
        """Those of a component's layers, by published name, that get factors.

        Raises:
            ConfigError: none of them has such a name.
        """
        endings, unused = tuple(f".{ending}" for ending in self.endings[component]), self.unused[component]
        found = {name for name in names if f".{name}".endswith(endings) and not name.startswith(unused)}
        if not found:
            listed = ", ".join(self.endings[component])
            raise ConfigError(f"lora_layers: {listed}: no layer of the {component} has such a name")
        return found

    def first_down(self, component: str, layer: str, fan_in: int) -> NDArray[np.float32]:
        """First value [rank, fan_in] of a layer's down matrix."""
        return initial_down(self.seed, f"{component}.{layer}", self.rank, fan_in)


def _in_blocks(blocks: Sequence[str], layers: Sequence[str], model: ModelFolder) -> tuple[str, ...]:
    """Endings of the names of layers in the transformer's blocks of these numbers."""
    there = [str(number) for number in range(int(model.config(model.family.denoiser).get("num_layers") or 0))]
    if unknown := [block for block in blocks if block not in there]:
        raise ConfigError(
            f"lora_blocks: {', '.join(unknown)}: no such block of the {model.family.denoiser}, which has 0 to "
            f"{len(there) - 1}"
        )
    return tuple(f"transformer_blocks.{number}.{layer}" for number in blocks for layer in layers)


def initial_down(seed: int, name: str, rank: int, fan_in: int) -> NDArray[np.float32]:
    """First value [rank, fan_in] of a layer's down matrix A: uniform in ±1/√fan_in, as peft draws it.

    The up matrix B starts at zero (arXiv 2106.09685, section 4.1).  `name` is COMPONENT.LAYER, so that the draw does
    not depend on the order in which a framework walks its layers.
    """
    bound = fan_in**-0.5
    draw = lora_factor(seed, name)
    return draw.uniform(-bound, bound, (rank, fan_in)).astype(np.float32)
