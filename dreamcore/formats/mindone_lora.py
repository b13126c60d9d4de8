"""LoRA as MindONE's stable_diffusion_v2 saves it (`inject_trainable_lora`, `inject_trainable_lora_to_textencoder`).

In the UNet it has the layers that ours has: queries, keys, values and outputs of every attention.  In the text encoder
queries, keys and values are one layer, `in_proj`, with one pair of factors [rank, C] and [3C, rank].  Read, each of the
three gets the down matrix and its third of the up matrix.  Written, factors that were trained apart are stacked, which
takes three times the rank; and since all layers of a file have one rank there, the others are filled up with zeros.
The products, which alone count, stay the same.  MindONE knows no alpha: its scale is chosen when images are made, 1 by
default, and that is what files are read and written for.

Sources: mindspore-lab/mindone, `examples/stable_diffusion_v2/ldm/modules/lora.py`, `text_to_image.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .ldm import OPEN_CLIP, UNET, UNetGeometry, text_names, unet_names
from .lora import DOWN, UP
from .lora_pair import Pair, fold, stack
from .mindone import BOOKKEEPING, mindone_name
from .renaming import Names
from .weights import PREFIX, Arrays

RANK = "lora_rank"
"""The entry that notes the rank."""
THEIR_DOWN, THEIR_UP = ".lora_down.weight", ".lora_up.weight"
"""Endings of MindONE's names of factors."""
COMPONENTS = {UNET: "unet", OPEN_CLIP: "text_encoder"}


def lora_from_mindone(arrays: Mapping[str, NDArray[Any]], what: str, unet: UNetGeometry | None = None) -> Arrays:
    """The factors of MindONE's LoRA file by our names, COMPONENT.LAYER.lora_A.weight and .lora_B.weight.

    Args:
        arrays: what the file holds.
        what: the file, for messages.
        unet: geometry of the model that they are for; None: Stable Diffusion 1's and 2's.

    Raises:
        ConfigError: a name of no layer that this model has, a factor without its other half, factors that do not fit
            each other, or no factors at all.
    """
    table = _layers(unet, arrays)
    pairs: dict[str, dict[str, NDArray[Any]]] = {}
    for name, value in arrays.items():
        ending = next((ending for ending in (THEIR_DOWN, THEIR_UP) if name.endswith(ending)), None)
        if ending is not None:
            pairs.setdefault(name.removesuffix(ending), {})[ending] = value
        elif not BOOKKEEPING.fullmatch(name):
            raise ConfigError(f"lora: {what}: {name}: not a name that MindONE gives a LoRA factor")
    if not pairs:
        raise ConfigError(f"lora: {what}: holds no LoRA factors of MindONE's")
    found: Arrays = {}
    for layer, pair in pairs.items():
        if layer not in table:
            raise ConfigError(f"lora: {what}: {layer}: this model has no such layer")
        if len(pair) < 2:
            raise ConfigError(f"lora: {what}: {layer}: has only {', '.join(pair)} of its factors")
        down, up = pair[THEIR_DOWN], pair[THEIR_UP]
        published = table[layer]
        if down.ndim != 2 or up.ndim != 2 or up.shape[1] != len(down) or len(up) % len(published):
            raise ConfigError(f"lora: {what}: {layer}: factors {down.shape} and {up.shape} do not fit")
        for name, part in zip(published, np.split(up, len(published)), strict=True):
            found |= {name + DOWN: down, name + UP: part}
    return found


def lora_to_mindone(
    pairs: Mapping[tuple[str, str], Pair], what: str, unet: UNetGeometry | None = None
) -> dict[str, NDArray[Any]]:
    """What MindONE's LoRA file is to hold, with the rank as `lora_rank`.

    Args:
        pairs: by (component, layer), as `formats.lora.read_lora` gives them; their scales go into the up matrices.
        what: where they come from, for messages.
        unet: as for `lora_from_mindone`.

    Raises:
        ConfigError: a layer that MindONE gives no factors, or none at all.
    """
    layers = [layer for _, layer in pairs]
    table = _layers(unet, layers)
    known = {name for published in table.values() for name in published}
    ours = {_known(component, layer, known, what): fold(pair) for (component, layer), pair in pairs.items()}
    if not ours:
        raise ConfigError(f"lora: {what}: holds no LoRA factors")
    joined: dict[str, Pair] = {}
    for layer, published in table.items():
        parts = [ours.get(name) for name in published]
        if there := [pair for pair in parts if pair is not None]:
            joined[layer] = stack(parts, [len(there[0].up)] * len(parts))
    rank = max(pair.rank for pair in joined.values())
    found: dict[str, NDArray[Any]] = {}
    for layer, pair in joined.items():
        missing = rank - pair.rank
        found[layer + THEIR_DOWN] = np.pad(pair.down, ((0, missing), (0, 0)))
        found[layer + THEIR_UP] = np.pad(pair.up, ((0, 0), (0, missing)))
    return {**found, RANK: np.array(rank, np.int64)}


def _layers(unet: UNetGeometry | None, names: Iterable[str]) -> Names:
    """MindONE's name of each layer that it gives factors -> ours of those that it is in diffusers."""
    depth = 1 + max((_number(name) for name in names), default=0)
    tables = {UNET: unet_names(unet or UNetGeometry()), OPEN_CLIP: text_names(depth, open_clip=True)}
    found: Names = {}
    for part, table in tables.items():
        for name, published in table.items():
            theirs = mindone_name(part + name)
            attends = ".attn1." in theirs or ".attn2." in theirs or ".attn.attn." in theirs
            if attends and theirs.endswith(".weight"):
                own = (f"{COMPONENTS[part]}.{new.removesuffix('.weight')}" for new in published)
                found[theirs.removesuffix(".weight")] = tuple(own)
    return found


def _number(name: str) -> int:
    """The layer of the text encoder that a name of either library is in, or 0; no encoder has as many as 1000."""
    for before in ("resblocks.", "encoder.layers."):
        _, found, rest = name.partition(before)
        if found and (number := rest.partition(".")[0]).isdecimal():
            return min(int(number), 1000)
    return 0


def _known(component: str, layer: str, known: Set[str], what: str) -> str:
    """A layer's full name; old files leave out CLIP's prefix, or to_out's number."""
    options = (f"{component}.{layer}", f"{component}.{PREFIX}{layer}", f"{component}.{layer}.0")
    name = next((option for option in options if option in known), None)
    if name is None:
        raise ConfigError(
            f"lora: {what}: {component}.{layer}: MindONE's stable_diffusion_v2 gives LoRA to the attentions of the "
            "UNet and the text encoder alone"
        )
    return name
