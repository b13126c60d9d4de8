"""LoRAs merged, into one or into a model, and brought to another rank: `dreambooth convert merge` and `resize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.convert import MergeConfig, ResizeConfig
from ..errors import ConfigError, RunError
from ..formats.lora_arithmetic import added, concatenated, relative_error, resized, rounded
from ..formats.lora_pair import Pair, Pairs
from ..formats.ppdiffusers import to_ppdiffusers
from ..formats.renaming import cast
from ..formats.tensors import Entry, as_float
from ..io.progress import each
from ..io.targets import working_folder
from ..models.folder import ModelFolder
from ..models.lora_forms import LoraSource, open_lora, write_form
from ..models.pipeline_folder import DTYPES, Change, published, write_pipeline
from ..track import shows_progress
from .conversion import (
    FOLDERS,
    MODEL_FORMS,
    OF_MODELS,
    Conversion,
    found_by,
    lora_file,
    lora_form,
    model_form,
    open_model,
    refuse_given,
    refuse_idle_reading,
    writing,
    writing_lora,
)
from .convert import write_file

COMMON = (
    *("ss_base_model_version", "ss_v2", "ss_sd_model_name", "ss_network_module", "ss_resolution"),
    *("modelspec.sai_model_spec", "modelspec.architecture", "modelspec.implementation", "modelspec.resolution"),
    "modelspec.prediction_type",
)
"""Fields of headers that say what model a LoRA is for."""


@shows_progress
def merge(config: MergeConfig) -> Conversion:
    """Write several LoRAs as one, or a model with LoRA in its weights.

    Raises:
        ConfigError, RunError: as `convert`.
    """
    files = [lora_file("lora", name) for name, _ in config.loras]
    if config.pretrained_model_name_or_path is None:
        refuse_given(config, dict.fromkeys(OF_MODELS, "with pretrained_model_name_or_path"))
        return _merge_loras(config, files)
    refuse_idle_reading(config, config.pretrained_model_name_or_path)
    return _merge_into_model(config, files, config.pretrained_model_name_or_path)


@shows_progress
def resize(config: ResizeConfig) -> Conversion:
    """Write a LoRA of another rank; as `merge`."""
    file = lora_file("source", config.source)
    model = _model(config.pretrained_model_name_or_path)
    target = Path(config.target).expanduser()
    lora = open_lora(file, model, allow_pickle=config.allow_pickle)
    form = lora_form(config.to, target, lora.form)
    pairs = _resized(lora.pairs, config.rank)
    header = {**lora.header, **_ranks(lora.header, pairs)}
    return _write(config, form, lora.pairs, pairs, header, model, str(file))


def _resized(pairs: Pairs, rank: int) -> Pairs:
    """Factors of another rank."""
    return {key: resized(pairs[key], rank)[0] for key in each(list(pairs), "factoring layers")}


def _merge_loras(config: MergeConfig, files: Sequence[Path]) -> Conversion:
    target = Path(config.target).expanduser()
    sources = [open_lora(file, allow_pickle=config.allow_pickle) for file in files]
    form = lora_form(config.to, target, sources[0].form)
    loras = [(lora.pairs, scale) for lora, (_, scale) in zip(sources, config.loras, strict=True)]
    exact = concatenated(loras, "lora")
    rank = config.rank
    pairs = exact if rank is None else _resized(exact, rank)
    header = _common(sources)
    what = " and ".join(map(str, files))
    return _write(config, form, exact, pairs, header | _ranks(header, pairs), None, what)


def _write(
    config: MergeConfig | ResizeConfig,
    form: str,
    wanted: Pairs,
    pairs: Pairs,
    header: Mapping[str, str],
    model: ModelFolder | None,
    what: str,
) -> Conversion:
    """Write factors, and say how far they are from those that are wanted, in the type that they are written in."""
    target = Path(config.target).expanduser()
    with writing_lora(target, form) as part:
        said = write_form(
            form,
            pairs,
            part,
            precision=config.save_precision,
            wanted=None,
            header=header,
            model=model,
            what=what,
        )
    errors = {}
    if config.rank is not None:
        written = {key: rounded(pair, DTYPES[said or "fp32"]) for key, pair in pairs.items()}
        errors = {".".join(key): relative_error(wanted[key], pair) for key, pair in written.items()}
    ranks = sorted({pair.rank for pair in pairs.values()})
    words = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    made = f"a LoRA of {len(pairs)} layers in the form of {form}, {words}{f', {said}' if said else ''}"
    notes = found_by(target, form, model, allow_pickle=config.allow_pickle)
    return Conversion(target, made, errors=errors, notes=notes)


def _common(sources: Sequence[LoraSource]) -> dict[str, str]:
    """What the headers of all say alike of the model that they are for."""
    first, *others = (lora.header for lora in sources)
    return {n: first[n] for n in COMMON if n in first and all(other.get(n) == first[n] for other in others)}


def _ranks(header: Mapping[str, str], pairs: Pairs) -> dict[str, str]:
    """kohya's fields of the rank, where a header has kohya's fields."""
    if not any(name.startswith("ss_") for name in header):
        return {}
    rank = str(max(pair.rank for pair in pairs.values()))
    return {"ss_network_dim": rank, "ss_network_alpha": rank}


def _model(name: str | None) -> ModelFolder | None:
    return ModelFolder.open(name) if name is not None else None


def _merge_into_model(config: MergeConfig, files: Sequence[Path], name: str) -> Conversion:
    target = Path(config.target).expanduser()
    form = model_form(config.to, target)
    if form == "mindone":
        refuse_given(config, {"save_precision": "on other forms than mindone's"})
    model = open_model(name, config)
    pickles = config.allow_pickle
    loras = [open_lora(file, model, allow_pickle=pickles).pairs for file in files]
    strengths = [scale for _, scale in config.loras]
    parts: dict[tuple[str, str], list[tuple[Pair, float]]] = {}
    for pairs, strength in zip(loras, strengths, strict=True):
        for key, pair in pairs.items():
            parts.setdefault(key, []).append((pair, strength))
    change = _changes(parts)
    precision = config.save_precision
    with writing(target, form) as part:
        if form in FOLDERS:
            left_out = write_pipeline(model, part, precision=precision, change=change, allow_pickle=pickles)
            if form == "paddle":
                to_ppdiffusers(part)
        else:
            with working_folder(part) as work:
                left_out = write_pipeline(model, work, change=change, allow_pickle=pickles)
                left_out += write_file(work, part, form, precision)
    many = f"{len(files)} LoRA files" if len(files) > 1 else "a LoRA"
    return Conversion(target, f"{MODEL_FORMS[form]}, with {many} in {len(parts)} layers", tuple(left_out))


def _changes(parts: Mapping[tuple[str, str], list[tuple[Pair, float]]]) -> Change:
    """The weights that LoRA changes, each computed when it is written, and of its own type."""

    def change(component: str, entries: dict[str, Entry]) -> dict[str, Entry]:
        found = {}
        for name, layer in published(component, entries).items():
            key = (component, layer.removesuffix(".weight"))
            if layer.endswith(".weight") and key in parts:
                found[name] = _merged(entries[name], parts[key], ".".join(key))
        return found

    return change


def _merged(entry: Entry, pairs: list[tuple[Pair, float]], what: str) -> Entry:
    def compute() -> NDArray[Any]:
        value = cast(Entry.of(added(as_float(entry), pairs, what)), entry.dtype)
        numbers = value.read()
        if not np.isfinite(as_float(Entry(value.dtype, value.shape, numbers))).all():
            raise RunError(f"{what}: with LoRA, numbers that {entry.dtype} has no place for; give save_precision fp32")
        return numbers

    if entry.dtype not in ("F16", "BF16", "F32", "F64"):
        raise ConfigError(f"{what}: weights of type {entry.dtype}, to which no LoRA is added")
    return Entry(entry.dtype, entry.shape, compute)
