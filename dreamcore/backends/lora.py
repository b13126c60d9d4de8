"""LoRA as a run has it: which layers get factors, of what rank, from which first values."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..config.method import LoraMethod
from ..errors import ConfigError
from ..formats.lora import Pair
from ..formats.lora_arithmetic import product
from ..formats.lora_kinds import row_norms
from ..formats.lora_raw import DOWN, MAGNITUDE, UP
from ..formats.weights import Arrays
from ..models.folder import ModelFolder
from .lora_blocks import Blocks
from .lora_first import FROZEN as FROZEN
from .lora_first import factor_shapes, first_values
from .lora_first import initial_down as initial_down

BASE = ".base_layer"
"""What peft calls the layer that its own stands around."""
_FACTORS = {"lora_A", "lora_B", "lora_magnitude_vector"}
Pairs = Mapping[tuple[str, str], Pair]
"""A LoRA file's factors by (component, layer)."""


@dataclass(frozen=True)
class TrainedLora:
    """What a LoRA run has trained."""

    factors: Arrays
    """Raw, by COMPONENT.LAYER.lora_A.weight and …lora_B…, or what else the method has (`lora_first`)."""
    rank: int
    alpha: float
    layers: Mapping[str, Mapping[str, Sequence[int]]]
    """Component -> the layers that it has -> shapes of their weights."""
    rslora: bool = False

    @property
    def scale(self) -> float:
        """By which the factors' product counts."""
        return scale_of(self.alpha, self.rank, rslora=self.rslora)

    @property
    def kind(self) -> str:
        """DoRA, LoHa or LoKr; "": what every program reads as LoRA."""
        ends = {MAGNITUDE: "DoRA", ".hada_w1_a": "LoHa", ".lokr_w1": "LoKr"}
        return next((kind for end, kind in ends.items() if any(name.endswith(end) for name in self.factors)), "")


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
    method: LoraMethod = "lora"
    dora: bool = False
    rslora: bool = False
    factor: int | None = None
    """LoKr's."""
    blocks: Blocks | None = None
    """Of the denoiser; None: all."""

    @classmethod
    def of(cls, config: TrainConfig, model: ModelFolder, first: Pairs | None = None) -> Lora:
        """From the settings and the model's family.

        Args:
            first: factors that training begins with, whose layers of text encoders get some, for no setting names them.
        """
        alpha = config.lora_alpha if config.lora_alpha is not None else float(config.rank)
        endings = {encoder.network: encoder.lora_layers for encoder in model.text_encoders}
        endings = {name: (*usual, *_beyond(usual, name, first or {})) for name, usual in endings.items()}
        layers = tuple(config.lora_layers or model.family.lora_layers)
        endings |= {model.family.denoiser: layers}
        unused = {name: model.unused(name) for name in endings}
        blocks = None if config.lora_blocks is None else Blocks.of(config.lora_blocks, model.family.denoiser)
        method = config.lora_method
        return cls(
            config.rank,
            alpha,
            config.lora_dropout if method in ("lora", "pissa") else 0.0,
            config.seed,
            endings,
            unused,
            layers,
            method,
            method == "lora" and config.use_dora,
            config.use_rslora,
            config.lokr_factor if method == "lokr" else None,
            blocks,
        )

    @property
    def scale(self) -> float:
        """By which the factors' product counts."""
        return scale_of(self.alpha, self.rank, rslora=self.rslora)

    @property
    def reads_weights(self) -> bool:
        """Whether the factors' first values depend on the weights."""
        return self.dora or self.method == "pissa"

    def chosen(self, component: str, names: Iterable[str]) -> set[str]:
        """Those of a component's layers, by published name, that get factors.

        Raises:
            ConfigError: none of them has such a name, or lies in such a block.
        """
        endings, unused = tuple(f".{ending}" for ending in self.endings[component]), self.unused[component]
        found = {name for name in names if f".{name}".endswith(endings) and not name.startswith(unused)}
        if not found:
            listed = ", ".join(self.endings[component])
            raise ConfigError(f"lora_layers: {listed}: no layer of the {component} has such a name")
        return found if self.blocks is None else self.blocks.within(component, found)

    def first(
        self, component: str, layer: str, shape: Sequence[int], weight: Callable[[], NDArray[np.float32]]
    ) -> Arrays:
        """First values of a layer's factors in PyTorch's layout, by the ends of their names; those that end in `FROZEN`
        do not train.

        Args:
            shape: of the layer's weight.
            weight: reads it, for methods that ask for it.
        """
        shapes, name = self.shapes(shape), f"{component}.{layer}"
        there = weight() if self.reads_weights else None
        return first_values(self.method, shapes, self.seed, name, scale=self.scale, weight=there)

    def shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Shapes of the factors of a layer whose weight has this one, by the ends of their names."""
        return factor_shapes(self.method, shape, self.rank, dora=self.dora, factor=self.factor)

    def numbers(self, shape: Sequence[int], *, frozen: bool = False) -> int:
        """Of a layer's factors, how many train, or (`frozen`) do not."""
        shapes = self.shapes(shape)
        return sum(math.prod(one) for name, one in shapes.items() if name.endswith(FROZEN) == frozen)

    @property
    def between(self) -> int:
        """Numbers of a token that a layer keeps between its factors."""
        return {"lora": self.rank, "pissa": self.rank, "loha": self.rank**2, "lokr": 0}[self.method]

    @property
    def beside(self) -> int:
        """Answers of a layer's width that its factors keep besides."""
        return 2 if self.dora or self.method == "lokr" else 0

    def scale_beside(self, factors: Iterable[str]) -> float:
        """By which a layer's factors count, by the ends of their names: LoKr's without a product as they are, as others
        read them (`lora_kinds.as_factors`)."""
        return 1.0 if {".lokr_w1", ".lokr_w2"} <= {*factors} else self.scale

    def first_factors(
        self,
        file: Path,
        pairs: Pairs,
        shapes: Mapping[str, Sequence[int]],
        weight: Callable[[str, str], NDArray[np.float32]] | None = None,
    ) -> Arrays:
        """First values of the layers that a LoRA file has, by COMPONENT.LAYER.lora_A.weight and …lora_B…

        Their product, times this run's scale, is what the file's makes: the ratio of the scales goes into the up
        matrices (a power of two, as it mostly is, rounds nothing); where this run's rank is larger, the down matrices
        go on as they would have begun, and the up matrices with zeros.

        Args:
            pairs: of the file, by (component, layer).
            shapes: of all factors of this run.
            weight: reads a layer's, for DoRA that begins with factors which had none.

        Raises:
            ConfigError: layers that this run does not train, a larger rank, or lengths of rows without DoRA.
        """
        self._refuse_lost(file, pairs, shapes)
        found: Arrays = {}
        for (component, layer), pair in pairs.items():
            down_name, up_name = f"{component}.{layer}{DOWN}", f"{component}.{layer}{UP}"
            down_shape, up_shape, rank = shapes[down_name], shapes[up_name], len(pair.down)
            refuse_larger_rank(file, rank, self.rank)
            down = initial_down(self.seed, f"{component}.{layer}", self.rank, math.prod(down_shape[1:]))
            down[:rank] = pair.down.reshape(rank, -1)
            up = np.zeros((up_shape[0], self.rank), np.float32)
            up[:, :rank] = pair.up.reshape(len(pair.up), -1).astype(np.float64) * (pair.scale / self.scale)
            found |= {down_name: down.reshape(down_shape), up_name: up.reshape(up_shape)}
            found |= self._first_lengths(file, f"{component}.{layer}", pair, shapes, weight)
        return found

    def _first_lengths(
        self,
        file: Path,
        name: str,
        pair: Pair,
        shapes: Mapping[str, Sequence[int]],
        weight: Callable[[str, str], NDArray[np.float32]] | None,
    ) -> Arrays:
        """DoRA's of a layer with a file's factors: the file's, or those that its changed weight has."""
        if not self.dora:
            if pair.magnitude is not None:
                raise ConfigError(f"init_lora: {file}: {name}: is DoRA, whose lengths would be lost; give use_dora")
            return {}
        lengths = pair.magnitude
        if lengths is None:
            assert weight is not None
            component, _, layer = name.partition(".")
            whole = weight(component, layer)
            lengths = row_norms(whole.astype(np.float64) + product(pair).reshape(whole.shape))
        return {name + MAGNITUDE: lengths.astype(np.float32).reshape(tuple(shapes[name + MAGNITUDE]))}

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


def scale_of(alpha: float, rank: int, *, rslora: bool) -> float:
    """alpha/rank (arXiv 2106.09685, section 4.1), or alpha/√rank (rsLoRA, arXiv 2312.03732, theorem 3.2)."""
    return alpha / (rank**0.5 if rslora else rank)


def layer_shapes(weights: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Shapes of the weights of layers, by the layers' names, from those of all that a network has, factors that stand
    beside layers left out."""
    ending = ".weight"
    layers = {name.removesuffix(ending): shape for name, shape in weights.items() if name.endswith(ending)}
    own = {name: shape for name, shape in layers.items() if not _FACTORS.intersection(name.split("."))}
    return {name.removesuffix(BASE): shape for name, shape in own.items()}


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
