"""LoRA, as it is the same on every backend: which layers, first values, published names, files with alpha folded in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..io.names import LORA_FACTORS_FILE, LORA_FILE
from .weights import PREFIX, Arrays, read_exactly, read_metadata, read_safetensors, write_safetensors

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Endings of the raw factors' names, COMPONENT.LAYER before them."""
_KINDS = {
    "lora.down.weight": "down", "lora_linear_layer.down.weight": "down", "lora_A.weight": "down",
    "lora.up.weight": "up", "lora_linear_layer.up.weight": "up", "lora_B.weight": "up",
    "alpha": "alpha", "lora.alpha": "alpha", "lora_linear_layer.alpha": "alpha",
}  # fmt: skip
ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers notes peft's settings in a file's header, as JSON with names COMPONENT.SETTING."""
_OLD_CLIP = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""Layers of a text encoder as diffusers named them in 2023, and as it names Kohya's on reading them."""
_OTHERS = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "lokr_w": "LoKr", "hada_w": "LoHa", "oft_": "OFT",
    "lora_mid": "LoRA in three factors (Tucker)",
}  # fmt: skip
"""Parts of the names of factors of other kinds."""
_KOHYA = {"unet": ("lora_unet",), "transformer": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1")}
"""Component -> what Kohya's names of its layers begin with; those of text_encoder_N with lora_teN."""
_KOHYA_KINDS = {"lora_down.weight": "lora.down.weight", "lora_up.weight": "lora.up.weight", "alpha": "alpha"}
_FACTOR = re.compile(rf"(?P<component>[a-z0-9_]+)\.(?P<layer>.+?)[._](?P<kind>{'|'.join(map(re.escape, _KINDS))})")


def published_name(factor: str) -> str:
    """The name under which diffusers' own scripts publish a factor, which diffusers reads.

    A1111 and ComfyUI name the layers of SD 1/2's and SDXL's UNet otherwise (as Kohya does), and find none of ours; of
    SD3 and Flux, ComfyUI's table has these names.

    >>> published_name("transformer.transformer_blocks.0.attn.to_q.lora_A.weight")
    'transformer.transformer_blocks.0.attn.to_q.lora_A.weight'

    >>> published_name("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight")
    'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight'
    """
    if factor.startswith("transformer."):  # of SD3, Flux and all that came later: peft's own names
        return factor
    infix = "lora_linear_layer" if factor.startswith("text_encoder") else "lora"
    return factor.replace(DOWN, f".{infix}.down.weight").replace(UP, f".{infix}.up.weight")


@dataclass(frozen=True)
class Pair:
    """One layer's factors in PyTorch's layout, and the scale alpha/rank that is not in them yet."""

    down: NDArray[Any]
    up: NDArray[Any]
    scale: float


def read_lora(file: Path, arrays: Arrays | None = None) -> dict[tuple[str, str], Pair]:
    """The factors of a LoRA file in diffusers' or peft's names, old or new, by (component, layer).

    Args:
        arrays: what it holds, where a library has read it and brought its names into diffusers'.

    Raises:
        ConfigError: a name that is not understood, a factor without its other half, or no factors at all.
    """
    parts: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
    for name, array in (read_safetensors(file) if arrays is None else arrays).items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            raise ConfigError(f"lora: {file}: {name}: not a name that diffusers gives a LoRA factor")
        layer = match["layer"].replace(".processor", "")  # as diffusers named layers of attention in 2023
        if match["component"].startswith("text_encoder"):
            stem, _, last = layer.rpartition(".")
            layer = f"{stem}.{_OLD_CLIP[last]}" if last in _OLD_CLIP else layer
        parts.setdefault((match["component"], layer), {})[_KINDS[match["kind"]]] = array
    if not parts:
        raise ConfigError(f"lora: {file}: holds no LoRA factors")
    for (component, layer), pair in parts.items():
        if not {"down", "up"} <= pair.keys():
            raise ConfigError(f"lora: {file}: {component}.{layer}: has only {', '.join(pair)} of its factors")
    said = json.loads(read_metadata(file).get(ADAPTER_METADATA, "{}"))
    return {
        (component, layer): Pair(pair["down"], pair["up"], _scale(pair, component, layer, said))
        for (component, layer), pair in parts.items()
    }


def understood(names: Iterable[str]) -> bool:
    """Whether all are names that `read_lora` knows."""
    return all(_FACTOR.fullmatch(name) for name in names)


def refuse_other_kinds(file: Path, names: Iterable[str]) -> None:
    """Raise ConfigError where a file holds adapters that are not LoRA's two factors, saying what they are."""
    for name in names:
        kind = next((kind for part, kind in _OTHERS.items() if part in name), None)
        if kind is not None:
            raise ConfigError(f"lora: {file}: {name}: holds {kind}, which is not read; only plain LoRA is")


def _from_kohya(file: Path, arrays: Arrays, layers: Mapping[str, Iterable[str]]) -> Arrays:
    """Factors under Kohya's names, where a file has them, under diffusers'.

    Kohya joins a layer's name by underlines, so that only the model itself tells what it is (`layers` by component).

    Raises:
        ConfigError: a name of no layer.
    """
    if not any(name.startswith("lora_") for name in arrays):
        return arrays
    known = {
        f"{beginning}_{layer.replace('.', '_')}": f"{component}.{layer}"
        for component, names in layers.items()
        for beginning in _KOHYA.get(component, (component.replace("text_encoder_", "lora_te"),))
        for layer in names
    }
    found: Arrays = {}
    for name, array in arrays.items():
        layer, _, kind = name.partition(".")
        if layer not in known or kind not in _KOHYA_KINDS:
            raise ConfigError(
                f"lora: {file}: {name}: a name as Kohya's trainer gives it, of no layer of this model; files for "
                "SDXL's UNet, SD3 and Flux, whose layers it calls otherwise, are read by the torch backend alone"
            )
        found[f"{known[layer]}.{_KOHYA_KINDS[kind]}"] = array
    return found


def _scale(pair: Arrays, component: str, layer: str, said: Mapping[str, Any]) -> float:
    """alpha/rank of a layer: its file's own alpha, or what peft's settings say in the file's header (`said`)."""
    rank = len(pair["down"])
    if "alpha" in pair:
        return float(pair["alpha"].item()) / rank
    if f"{component}.lora_alpha" not in said:
        return 1.0
    patterns: Mapping[str, float] = said.get(f"{component}.alpha_pattern") or {}
    own = (alpha for name, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({name})", layer))
    alpha = float(next(own, said[f"{component}.lora_alpha"]))
    return alpha / (rank**0.5 if said.get(f"{component}.use_rslora") else rank)  # arXiv 2312.03732


def factors_for(
    file: Path, shapes: Mapping[str, Mapping[str, Sequence[int]]], arrays: Arrays | None = None
) -> dict[tuple[str, str], Pair]:
    """The factors of a LoRA file by (component, layer) as a model names its layers.

    Args:
        shapes: component -> layer -> shape of its weight in PyTorch's layout.
        arrays: as for `read_lora`.

    Raises:
        ConfigError: as `read_lora`, and for a layer that the model lacks, or factors that do not fit its weight.
    """
    if arrays is None:
        arrays = read_safetensors(file)
        refuse_other_kinds(file, arrays)
        arrays = _from_kohya(file, arrays, shapes)
    found = {}
    for (component, layer), pair in read_lora(file, arrays).items():
        there = shapes.get(component, {})
        options = (layer, f"{PREFIX}{layer}", f"{layer}.0")  # old files leave out CLIP's prefix, or to_out's number
        name = next((option for option in options if option in there), None)
        if name is None:
            raise ConfigError(f"lora: {file}: {component}.{layer}: this model has no such layer")
        product = (pair.up.shape[0], *pair.down.shape[1:])
        if product != tuple(there[name]) or pair.up.shape[1] != len(pair.down):
            raise ConfigError(
                f"lora: {file}: {component}.{layer}: factors {pair.down.shape} and {pair.up.shape} do not fit this "
                f"model's {tuple(there[name])}"
            )
        found[component, name] = pair
    return found


def save_published(factors: Arrays, scale: float, folder: Path) -> None:
    """Write `LORA_FILE` with scale = alpha/rank folded into the up matrices: every reader gets the same image."""
    arrays = {
        published_name(name): array * np.float32(scale) if name.endswith(UP) else array
        for name, array in factors.items()
    }
    write_safetensors(folder / LORA_FILE, arrays)


def save_factors(factors: Arrays, folder: Path) -> None:
    """Write the raw factors, to continue from."""
    write_safetensors(folder / LORA_FACTORS_FILE, factors)


def read_factors(folder: Path, shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """The raw factors that any backend wrote.

    Raises:
        RunError: factors that are missing, left over or of another shape.
    """
    return read_exactly(folder / LORA_FACTORS_FILE, shapes, "this run's LoRA")
