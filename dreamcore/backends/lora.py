"""LoRA as a run has it: which layers get factors, of what rank, from which first values."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..diffusion.randomness import lora_factor
from ..errors import ConfigError
from ..formats.lora import DOWN, UP, Pair
from ..formats.weights import Arrays
from ..models.folder import ModelFolder

Pairs = Mapping[tuple[str, str], Pair]
"""A LoRA file's factors by (component, layer)."""


@dataclass(frozen=True)
class TrainedLora:
    """What a LoRA run has trained."""

    factors: Arrays
    """Raw, by COMPONENT.LAYER.lora_A.weight and …lora_B…"""
    rank: int
    alpha: float
    layers: Mapping[str, Mapping[str, Sequence[int]]]
    """Component -> the layers that it has -> shapes of their weights."""


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
    layers: tuple[str, ...] = ()
    """Endings of the denoiser's, in whichever block."""

    @classmethod
    def of(cls, config: TrainConfig, model: ModelFolder, first: Pairs | None = None) -> Lora:
        """From the settings and the model's family.

        Args:
            first: factors that training begins with, whose layers of text encoders get some, for no setting names them.

        Raises:
            ConfigError: a transformer block that the model has not.
        """
        alpha = config.lora_alpha if config.lora_alpha is not None else float(config.rank)
        endings = {encoder.network: encoder.lora_layers for encoder in model.text_encoders}
        endings = {name: (*usual, *_beyond(usual, name, first or {})) for name, usual in endings.items()}
        layers = tuple(config.lora_layers or model.family.lora_layers)
        blocks = config.lora_blocks if model.schedule.prediction == "flow" else None  # of transformers
        endings |= {model.family.denoiser: layers if blocks is None else _in_blocks(blocks, layers, model)}
        unused = {name: model.unused(name) for name in endings}
        return cls(config.rank, alpha, config.lora_dropout, config.seed, endings, unused, layers)

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

    def first_factors(self, file: Path, pairs: Pairs, shapes: Mapping[str, Sequence[int]]) -> Arrays:
        """First values of the layers that a LoRA file has, by COMPONENT.LAYER.lora_A.weight and …lora_B…

        Their product, times this run's scale, is what the file's makes: the ratio of the scales goes into the up
        matrices (a power of two, as it mostly is, rounds nothing); where this run's rank is larger, the down matrices
        go on as they would have begun, and the up matrices with zeros.

        Args:
            pairs: of the file, by (component, layer).
            shapes: of all factors of this run.

        Raises:
            ConfigError: layers that this run does not train, or a larger rank.
        """
        self._refuse_lost(file, pairs, shapes)
        found: Arrays = {}
        for (component, layer), pair in pairs.items():
            down_name, up_name = f"{component}.{layer}{DOWN}", f"{component}.{layer}{UP}"
            down_shape, up_shape, rank = shapes[down_name], shapes[up_name], len(pair.down)
            refuse_larger_rank(file, rank, self.rank)
            down = self.first_down(component, layer, math.prod(down_shape[1:]))
            down[:rank] = pair.down.reshape(rank, -1)
            up = np.zeros((up_shape[0], self.rank), np.float32)
            up[:, :rank] = pair.up.reshape(len(pair.up), -1).astype(np.float64) * (pair.scale / self.scale)
            found |= {down_name: down.reshape(down_shape), up_name: up.reshape(up_shape)}
        return found

    def _refuse_lost(self, file: Path, pairs: Pairs, shapes: Mapping[str, Sequence[int]]) -> None:
        """Refuse a file some of whose layers would not train, and so not be saved, naming what would train them."""
        lost = [(component, layer) for component, layer in pairs if f"{component}.{layer}{DOWN}" not in shapes]
        if not lost:
            return
        component, layer = lost[0]
        trained = {name.partition(".")[0] for name in shapes}
        if component not in trained:
            remedy = "give train_text_encoder" if len(trained) < 2 else "no setting here trains it"
        elif f".{layer}".endswith(tuple(f".{ending}" for ending in self.layers)):
            remedy = "leave lora_blocks out"
        else:
            remedy = f"give lora_layers {','.join((*self.layers, *_beyond(self.layers, component, lost)))}"
        others = f", nor {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ConfigError(
            f"init_lora: {file}: {component}.{layer}: this run would not train it{others}, and they would be lost; "
            f"{remedy}"
        )


def layer_shapes(weights: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Shapes of the weights of layers, by the layers' names, from those of all that a network has."""
    ending = ".weight"
    return {name.removesuffix(ending): shape for name, shape in weights.items() if name.endswith(ending)}


def refuse_larger_rank(file: Path, there: int, rank: int) -> None:
    """Refuse factors of a larger rank than a run's.

    Raises:
        ConfigError: naming both.
    """
    if there > rank:
        raise ConfigError(
            f"init_lora: {file}: has rank {there}, and this run's rank is {rank}; leave rank out, or make the file "
            f"smaller: dreambooth convert resize {shlex.quote(str(file))} NEW_FILE --rank {rank}"
        )


def _beyond(usual: Iterable[str], component: str, layers: Iterable[tuple[str, str]]) -> list[str]:
    """Endings of the names of a component's layers that none of the usual ones fits."""
    known = tuple(f".{ending}" for ending in usual)
    others = [layer for part, layer in layers if part == component and not f".{layer}".endswith(known)]
    parts = [layer.rpartition(".") for layer in others]
    return sorted({f"{stem.rpartition('.')[2]}.{last}" if last.isdigit() else last for stem, _, last in parts})


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
