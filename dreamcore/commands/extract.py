"""The LoRA that is nearest to the difference of two models: `dreambooth convert extract`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.convert import ExtractConfig
from ..errors import ConfigError
from ..formats.lora_arithmetic import factored, product, rounded
from ..formats.lora_header import LoraFacts, lora_header
from ..formats.lora_pair import Pair
from ..formats.tensors import Entry, as_float
from ..io.progress import each
from ..models.folder import ModelFolder
from ..models.lora_forms import write_form
from ..models.pipeline_folder import DTYPES, component_entries, published
from ..track import shows_progress
from .conversion import Conversion, found_by, grouped, lora_form, open_model, refuse_idle_reading, writing_lora

PIECE = 1 << 22
"""Numbers that are squared at a time."""


@dataclass
class _Found:
    """What has been found so far."""

    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    """Tensors that differ, and to which LoRA does not reach."""
    whole: float = 0.0
    """Sum of the squares of all differences."""
    missed: float = 0.0
    """Sum of the squares of those that the LoRA does not hold."""


@shows_progress
def extract(config: ExtractConfig) -> Conversion:
    """Write the LoRA of a rank that is nearest to what tuning has changed.

    Raises:
        ConfigError: as `convert`; and models of different shapes, or that do not differ where LoRA reaches.
        RunError: as `convert`.
    """
    target = Path(config.target).expanduser()
    form = lora_form(config.to, target, "kohya")
    refuse_idle_reading(config, config.pretrained_model_name_or_path, config.base)
    tuned = open_model(config.pretrained_model_name_or_path, config)
    base = open_model(config.base, config)
    if tuned.family is not base.family:
        raise ConfigError(f"base: {config.base} is a {base.family.name}; the tuned model is a {tuned.family.name}")
    endings = _endings(config, tuned)
    models = {name: _both(tuned, base, name, config.allow_pickle) for name in endings}
    with writing_lora(target, form) as part:
        found = _Found()
        for component, (new, old) in models.items():
            chosen = _chosen(component, new, endings[component], tuned)
            _component(component, chosen, new, old, config, found)
        if not found.pairs:
            raise ConfigError(f"base: the models do not differ in any layer that gets LoRA ({_words(endings)})")
        said = write_form(
            form,
            found.pairs,
            part,
            precision=config.save_precision,
            wanted=None,
            header=_header(tuned, config, target),
            model=tuned,
            what="the difference",
        )
    share = math.sqrt(found.missed / found.whole)
    notes = [f"of the whole change of the networks (Frobenius), {share:.2%} is not in it"]
    if found.outside:
        notes.append(f"not in it, as LoRA does not reach them: {'; '.join(grouped(found.outside))}")
    made = f"a LoRA of {len(found.pairs)} layers in the form of {form}, rank {config.rank}{f', {said}' if said else ''}"
    notes += found_by(target, form, tuned, allow_pickle=config.allow_pickle)
    return Conversion(target, made, errors=found.errors, notes=tuple(notes))


def _header(model: ModelFolder, config: ExtractConfig, target: Path) -> dict[str, str]:
    """What the file says of itself: for which model it is; no date, so that equal models make equal files."""
    side = model.native_resolution
    facts = LoraFacts(
        model.index["_class_name"],
        config.rank,
        float(config.rank),
        target.stem,
        "2000-01-01",
        (side, side),
        v2=bool(model.config(model.family.denoiser).get("use_linear_projection")),
        prediction=model.schedule.prediction,
        base_model=config.base,
    )
    return {name: text for name, text in lora_header(facts).items() if not name.endswith("date")}


def _endings(config: ExtractConfig, model: ModelFolder) -> dict[str, tuple[str, ...]]:
    """Component -> endings of the names of its layers that get factors, as training has them."""
    denoiser = tuple(config.lora_layers or model.family.lora_layers)
    return {model.family.denoiser: denoiser} | {e.network: e.lora_layers for e in model.text_encoders}


def _words(endings: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{name}: {', '.join(many) or 'none'}" for name, many in endings.items())


def _both(
    tuned: ModelFolder, base: ModelFolder, component: str, allow_pickle: bool
) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """A component's tensors in both models, by published names.

    Raises:
        ConfigError: names or shapes that only one has.
    """
    sides = []
    for model in (tuned, base):
        entries = component_entries(model, component, allow_pickle=allow_pickle)
        names = published(component, entries)
        sides.append({names[n]: e for n, e in entries.items() if e.dtype in ("F16", "BF16", "F32", "F64")})
    new, old = sides
    other = [n for n in sorted({*new, *old}) if n not in new or n not in old or new[n].shape != old[n].shape]
    if other:
        raise ConfigError(f"base: {component}/{other[0]}: the two models do not have it alike ({len(other)} such)")
    return new, old


def _chosen(component: str, names: Mapping[str, Entry], endings: tuple[str, ...], model: ModelFolder) -> set[str]:
    """The weights that get factors.

    Raises:
        ConfigError: none has such a name.
    """
    found = {
        name
        for name, entry in names.items()
        if name.endswith(".weight")
        and len(entry.shape) in (2, 4)
        and f".{name.removesuffix('.weight')}".endswith(tuple(f".{ending}" for ending in endings))
        and not name.startswith(model.unused(component) or ("\0",))
    }
    if endings and not found:
        raise ConfigError(f"lora_layers: {', '.join(endings)}: no layer of the {component} has such a name")
    return found


def _component(
    component: str,
    chosen: set[str],
    new: Mapping[str, Entry],
    old: Mapping[str, Entry],
    config: ExtractConfig,
    found: _Found,
) -> None:
    for name, change in _differences(component, new, old):
        square = _square(change)
        if not math.isfinite(square):
            raise ConfigError(f"{component}/{name}: holds what is no number, in one of the models")
        found.whole += square
        if name not in chosen:
            found.missed += square
            found.outside.append(f"{component}/{name}")
            continue
        key = component, name.removesuffix(".weight")
        pair = rounded(factored(change, config.rank), DTYPES[config.save_precision or "fp32"])
        rest = _square(change - product(pair))
        found.pairs[key] = pair
        found.errors[".".join(key)] = math.sqrt(rest / square)
        found.missed += rest


def _differences(
    component: str, new: Mapping[str, Entry], old: Mapping[str, Entry]
) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in each(list(new), f"comparing the {component}s"):
        change = as_float(new[name]).astype(np.float32)
        change -= as_float(old[name])
        if change.any():
            yield name, change


def _square(values: NDArray[Any]) -> float:
    """Sum of the squares, added in float64 a piece at a time."""
    flat = values.reshape(-1)
    pieces = (flat[start : start + PIECE] for start in range(0, flat.size, PIECE))
    return sum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces)
