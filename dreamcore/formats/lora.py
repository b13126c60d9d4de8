"""LoRA files: read whatever program wrote them, by the published names of their layers, and written for diffusers.

Other kinds of files are made in `kohya_lora.py`; which layer a name belongs to is told by `lora_names.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, RunError
from ..io.names import LORA_FACTORS_FILE, LORA_FILE
from .lora_header import ADAPTER_METADATA, adapter_metadata
from .lora_kinds import as_factors
from .lora_layouts import PER_BLOCK, swaps
from .lora_names import Kind, Place, is_flux, module_and_kind, place, refuse_other_kinds
from .lora_pair import Pair as Pair
from .lora_pair import Pairs, cut, fold, reshaped
from .lora_raw import DOWN as DOWN
from .lora_raw import MAGNITUDE, pairs_of, products_of
from .lora_raw import UP as UP
from .renaming import cast
from .tensors import Entry, Tensors, as_float, in_order, write_tensors
from .weights import Arrays, read_exactly, read_safetensors, write_safetensors

ADAPTER_CONFIG = "adapter_config.json"
"""Where peft itself writes them, beside its file."""
_SETTINGS = ("lora_alpha", "alpha_pattern", "use_rslora")
"""Of peft's, those that tell the strength."""
Precision = Literal["fp32", "fp16", "bf16"]
"""Of the numbers in a file."""
_TYPES: dict[Precision, str] = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}


# Reading


def read_lora(file: Path, arrays: Arrays | None = None) -> Pairs:
    """The factors of a LoRA file in any names that `lora_names` knows, by component and layer as published.

    Layers whose weights are one in the file (queries, keys and values in the original SD 3's and Flux's names) are cut
    into the published ones.

    Args:
        arrays: what it holds, where somebody has read it.

    Raises:
        ConfigError: the file is damaged, it holds another kind of adapter, a name that is not understood, a factor
            without its other half, or no factors at all.
    """
    return _read(file, arrays, PER_BLOCK)


def _read(file: Path, arrays: Arrays | None, per_block: int) -> Pairs:
    opened = Tensors(file)
    names, header = list(opened if arrays is None else arrays), opened.metadata
    del opened  # the file
    refuse_other_kinds(file, names)
    flux = is_flux(names)
    modules: dict[str, Place] = {}
    kinds: dict[str, tuple[str, Kind]] = {}
    for name in names:
        if (found := module_and_kind(name)) is None:
            raise ConfigError(f"lora: {file}: {name}: not a name that a trainer known here gives a LoRA factor")
        if (where := place(found[0], flux=flux, per_block=per_block)) is None:
            raise ConfigError(f"lora: {file}: {name}: a name of no layer that is known here")
        modules[found[0]], kinds[name] = where, found
    if not names:
        raise ConfigError(f"lora: {file}: holds no LoRA factors")
    parts: dict[str, Arrays] = {}
    for name, array in (read_safetensors(file) if arrays is None else arrays).items():
        module, kind = kinds[name]
        if kind in (factors := parts.setdefault(module, {})):
            raise ConfigError(f"lora: {file}: {name}: a second {kind} factor of this layer")
        factors[kind] = array
    said = _noted(file, header, names)
    pairs: Pairs = {}
    for module, factors in parts.items():
        for key, pair in _pairs(file, module, modules[module], factors, said).items():
            if key in pairs:
                raise ConfigError(f"lora: {file}: {module}: holds two pairs of factors of {'.'.join(key)}")
            pairs[key] = pair
    return pairs


def _pairs(file: Path, module: str, where: Place, factors: Arrays, said: Mapping[str, Any]) -> Pairs:
    """A module's factors by the layers that they belong to; LoHa's and LoKr's as LoRA's of the same product."""
    products = {kind: array for kind, array in factors.items() if kind.startswith(("hada_", "lokr_"))}
    if products:
        found = as_factors(products) if not {"down", "up"} & factors.keys() else None
        if found is None:
            raise ConfigError(
                f"lora: {file}: {module}: {', '.join(factors)} are not the factors of a LoHa or LoKr layer"
            )
        rank, factors = found[2], {"down": found[0], "up": found[1], **factors}
    elif not {"down", "up"} <= factors.keys():
        raise ConfigError(f"lora: {file}: {module}: has only {', '.join(factors)} of its factors")
    else:
        rank = len(factors["down"])
    down, up = factors["down"], factors["up"]
    ranks = {*up.shape[1:2], len(down)} if down.ndim in (2, 4) and up.ndim in (2, 4) else set()
    if len(ranks) != 1 or 0 in ranks or any(n != 1 for n in up.shape[2:]):
        raise ConfigError(f"lora: {file}: {module}: factors {down.shape} and {up.shape} do not fit each other")
    layers, component = where.layers, where.component
    scale = 1.0 if rank is None else _scale(file, module, factors, rank, component, layers[0], said)
    magnitude = _magnitude(file, module, factors)
    if len(layers) > 1:
        pieces = cut(Pair(down, up, scale, magnitude), len(layers))
        if pieces is None:
            raise ConfigError(
                f"lora: {file}: {module}: factors {down.shape} and {up.shape} are not those of {len(layers)} layers"
            )
        return {(component, layer): piece for layer, piece in zip(layers, pieces, strict=True)}
    if where.original and len(up) % 2 == 0 and swaps(layers[0], len(up), down.shape[1]):
        up = np.concatenate(np.split(up, 2)[::-1])
        magnitude = None if magnitude is None else np.concatenate(np.split(magnitude, 2)[::-1])
    return {(component, layers[0]): Pair(down, up, scale, magnitude)}


def _magnitude(file: Path, module: str, factors: Arrays) -> NDArray[Any] | None:
    """DoRA's [out], in whatever shape it is written."""
    lycoris, outputs = factors.get("dora_scale"), len(factors["up"])
    if (found := factors.get("magnitude", lycoris)) is None:
        return None
    of_inputs = lycoris is not None and found.ndim > 1 and len(found) == 1 < outputs
    if found.size != outputs or of_inputs:
        raise ConfigError(
            f"lora: {file}: {module}: its magnitude {found.shape} is not one number for each of {outputs} outputs; "
            "DoRA with one for each input is not read"
        )
    return found.reshape(-1)


def _noted(file: Path, header: Mapping[str, str], names: Sequence[str]) -> Mapping[str, Any]:
    """peft's settings as COMPONENT.SETTING, from the file's header or, of peft's own files, SETTING from beside it."""
    beside = file.with_name(ADAPTER_CONFIG)
    try:
        if ADAPTER_METADATA in header:
            source, said = f"its header's {ADAPTER_METADATA}", json.loads(header[ADAPTER_METADATA])
        elif any("base_model.model." in name for name in names) and beside.is_file():
            source, said = ADAPTER_CONFIG, json.loads(beside.read_text(encoding="utf-8"))
        else:
            return {}
    except ValueError as error:
        raise ConfigError(f"lora: {file}: the settings noted with it are no JSON: {error}") from None
    if not isinstance(said, dict):
        raise ConfigError(f"lora: {file}: {source}: expected peft's settings; found {said!r:.80}")
    return said


def _scale(
    file: Path, module: str, factors: Arrays, rank: int, component: str, layer: str, said: Mapping[str, Any]
) -> float:
    """alpha/rank of a layer: its file's own alpha, or what peft's settings say (`said`)."""
    if "alpha" in factors:
        if factors["alpha"].size != 1 or not np.isfinite(factors["alpha"]).all():
            raise ConfigError(f"lora: {file}: {module}.alpha: {factors['alpha']!r:.80}; expected a number")
        return float(factors["alpha"].item()) / rank
    settings = {name: said.get(f"{component}.{name}", said.get(name)) for name in _SETTINGS}
    if settings["lora_alpha"] is None:
        return 1.0
    try:
        patterns: Mapping[str, float] = settings["alpha_pattern"] or {}
        own = (alpha for name, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({name})", layer))
        alpha = float(next(own, settings["lora_alpha"]))
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise ConfigError(f"lora: {file}: the alpha noted with it is none: {error}") from None
    return alpha / (rank**0.5 if settings["use_rslora"] else rank)  # arXiv 2312.03732


def factors_for(file: Path, shapes: Mapping[str, Mapping[str, Sequence[int]]], arrays: Arrays | None = None) -> Pairs:
    """The factors of a LoRA file by (component, layer) as a model names its layers.

    Args:
        shapes: component -> layer -> shape of its weight in PyTorch's layout.
        arrays: as for `read_lora`.

    Raises:
        ConfigError: as `read_lora`, and for a layer that the model lacks, or factors that do not fit its weight.
    """
    numbers = [
        int(m[1]) for name in shapes.get("unet", ()) if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name))
    ]
    found: Pairs = {}
    for (component, layer), pair in _read(file, arrays, max(numbers, default=PER_BLOCK - 1) + 1).items():
        there = shapes.get(component, {})
        joined = layer.replace(".", "_")  # where a name's underlines have been taken for points
        name = layer if layer in there else next((n for n in there if n.replace(".", "_") == joined), None)
        if name is None:
            raise ConfigError(f"lora: {file}: {component}.{layer}: this model has no such layer")
        if (fitting := reshaped(pair, tuple(there[name]))) is None:
            raise ConfigError(
                f"lora: {file}: {component}.{layer}: factors {pair.down.shape} and {pair.up.shape} do not fit this "
                f"model's {tuple(there[name])}"
            )
        found[component, name] = fitting
    return found


def read_factors(folder: Path, shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """The raw factors that any backend wrote.

    Raises:
        RunError: factors that are missing, left over or of another shape.
    """
    return read_exactly(folder / LORA_FACTORS_FILE, shapes, "this run's LoRA")


# Writing


def published_name(factor: str) -> str:
    """The name under which diffusers' own scripts publish a factor, which diffusers reads.

    A1111 and ComfyUI name the layers of SD 1/2's and SDXL's UNet otherwise, and find none of these: `kohya_lora.py`.

    >>> published_name("transformer.transformer_blocks.0.attn.to_q.lora_A.weight")
    'transformer.transformer_blocks.0.attn.to_q.lora_A.weight'

    >>> published_name("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight")
    'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight'
    """
    if factor.startswith("transformer."):  # of SD3, Flux and all that came later: peft's own names
        return factor
    infix = "lora_linear_layer" if factor.startswith("text_encoder") else "lora"
    return factor.replace(DOWN, f".{infix}.down.weight").replace(UP, f".{infix}.up.weight")


def write_lora(
    file: Path, arrays: Arrays, precision: Precision = "fp32", header: Mapping[str, str] | None = None
) -> None:
    """Write factors of any names, rounded to `precision`; alphas, which are the strength, stay as they are.

    The hashes of what is written are added to the header (modelspec.hash_sha256, sshs_model_hash); equal factors and
    headers make equal bytes on every machine.

    Raises:
        RunError: a number that is none, or that `precision` has no place for.
    """
    entries = {name: _rounded(name, array, precision) for name, array in arrays.items()}
    digest = hashlib.sha256()
    for name in in_order(entries):
        digest.update(np.ascontiguousarray(entries[name].read()).data)
    hashes = {"modelspec.hash_sha256": f"0x{digest.hexdigest()}", "sshs_model_hash": digest.hexdigest()}
    write_tensors(file, entries, {**(header or {}), **hashes})


def _rounded(name: str, array: Any, precision: Precision) -> Entry:
    kind = "F32" if name.endswith(".alpha") else _TYPES[precision]
    entry = cast(Entry.of(np.asarray(array)), kind)
    entry = Entry(entry.dtype, entry.shape, entry.read())
    if not np.isfinite(as_float(entry)).all():
        raise RunError(f"{name}: a number that is none, or has no place in {precision}")
    return entry


def save_published(
    factors: Arrays,
    scale: float,
    folder: Path,
    precision: Precision = "fp32",
    header: Mapping[str, str] | None = None,
) -> None:
    """Write `LORA_FILE` as diffusers' own scripts do, with scale = alpha/rank folded into the up matrices.

    Readers that know no alpha count these factors once: diffusers before 0.35, ppdiffusers, mindone, ComfyUI.  Those
    that know it are told so in the header, beside the true rank and alpha: `lora_header.adapter_metadata`.

    Args:
        factors: raw, by COMPONENT.LAYER.lora_A.weight and .lora_B.weight.
        header: what else the file says of itself (`lora_header`), beside peft's settings, which are always there.

    Raises:
        RunError: as `write_lora`.
    """
    pairs = pairs_of(factors, scale)
    arrays = published_arrays(pairs)
    for layer, own in products_of(factors, scale).items():
        arrays |= {f"{layer}.{kind}": array for kind, array in own.items()}
    dora = any(pair.magnitude is not None for pair in pairs.values())
    ranks = {key: pair.rank for key, pair in pairs.items()}
    write_lora(folder / LORA_FILE, arrays, precision, {**(header or {}), **adapter_metadata(ranks, scale, dora=dora)})


def published_arrays(pairs: Pairs, name: Callable[[str], str] = published_name) -> Arrays:
    """Factors under the names that diffusers publishes, or others of COMPONENT.LAYER…, the scale in the up matrices."""
    found: Arrays = {}
    for (component, layer), pair in pairs.items():
        place = f"{component}.{layer}"
        found |= {name(place + DOWN): pair.down, name(place + UP): fold(pair).up}
        if pair.magnitude is not None:
            ones = (1,) * (pair.down.ndim - 2)
            found[place + MAGNITUDE] = pair.magnitude.reshape((1, -1, *ones) if ones else (-1,))
    return found


def save_factors(factors: Arrays, folder: Path) -> None:
    """Write the raw factors, to continue from."""
    write_safetensors(folder / LORA_FACTORS_FILE, factors)
