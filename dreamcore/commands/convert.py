"""Models and LoRA files in other forms: `dreambooth convert`."""

from __future__ import annotations

from pathlib import Path

from ..config.convert import ConvertConfig, ReadingSettings
from ..config.output import SavePrecision
from ..errors import ConfigError
from ..formats.ppdiffusers import to_ppdiffusers
from ..formats.tensors import Tensors
from ..formats.torch_pickle import read_torch_pickle
from ..io.names import INDEX, LORA_FILE, ONE_FILE, PADDLE_LORA_FILE
from ..io.targets import working_folder
from ..models.checkpoint_folder import is_checkpoint
from ..models.folder import ModelFolder
from ..models.ldm_export import write_ldm_checkpoint
from ..models.lora_forms import holds_mindone_lora, is_lora, is_mindspores, open_lora, write_form
from ..models.pipeline_folder import is_plain, write_pipeline
from ..models.single_file import convert_single_file
from ..models.to_original import write_single_file
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

OF_LORA = {"pretrained_model_name_or_path": "on a LoRA file"}


@shows_progress
def convert(config: ConvertConfig) -> Conversion:
    """Write a model or a LoRA in another form.

    Raises:
        ConfigError: before anything is written, naming what cannot be used and what would be right.
        RunError: the disk is full or cannot be written; nothing is there then.
    """
    source, target = Path(config.source).expanduser(), Path(config.target).expanduser()
    kind = _kind(source, config.allow_pickle)
    if kind == "LoRA":
        model = config.pretrained_model_name_or_path
        refuse_idle_reading(config, model) if model is not None else refuse_given(config, OF_MODELS)
        return _convert_lora(config, source, target)
    refuse_given(config, OF_LORA)
    refuse_idle_reading(config, config.source)
    form = model_form(config.to, target)
    with writing(target, form) as part:
        left_out = write_model(source, config, form, part, config.save_precision)
    return Conversion(target, MODEL_FORMS[form], tuple(left_out))


def _kind(source: Path, allow_pickle: bool) -> str:
    """What a source is: "model" or "LoRA".

    Raises:
        ConfigError: neither.
    """
    if not source.exists():
        raise ConfigError(f"source: {source}: no such file or folder")
    if source.is_dir():
        if (source / INDEX).is_file() or is_checkpoint(source):
            return "model"
        if (source / LORA_FILE).is_file() or (source / PADDLE_LORA_FILE).is_file():
            return "LoRA"
        raise ConfigError(f"source: {source}: no model ({INDEX}) and no LoRA file ({LORA_FILE}) there")
    if source.suffix == ".safetensors":
        return "LoRA" if is_lora(Tensors(source)) else "model"
    if source.suffix not in ONE_FILE:
        raise ConfigError(f"source: {source}: expected a folder, or a file that ends in {', '.join(ONE_FILE)}")
    if is_mindspores(source):
        return "LoRA" if holds_mindone_lora(source) else "model"
    return "LoRA" if is_lora(read_torch_pickle(source, allow_pickle=allow_pickle)) else "model"


def write_model(
    source: Path, config: ReadingSettings, form: str, part: Path, precision: SavePrecision | None
) -> list[str]:
    """Write a model, folder or file, in a form; returns what has no place in it."""
    if form == "mindone" and precision is not None:
        raise ConfigError(f"save_precision={precision}: acts only on other forms than mindone's; remove it")
    if form in FOLDERS:
        left_out = _fill(source, config, part, precision)
        if form == "paddle":
            to_ppdiffusers(part)
        return left_out
    if source.is_dir() and form == "original":
        left = write_single_file(
            source, part, dtype=precision, variant=config.variant, allow_pickle=config.allow_pickle
        )
        return list(left)
    if source.is_dir() and is_plain(ModelFolder.open(str(source), variant=config.variant)):
        return write_file(source, part, form, precision)
    with working_folder(part) as work:
        left_out = _fill(source, config, work, None)
        return [*left_out, *write_file(work, part, form, precision)]


def write_file(folder: Path, part: Path, form: str, precision: SavePrecision | None) -> list[str]:
    """Write a plain folder in diffusers' layout as one file; returns what has no place in it."""
    if form == "mindone":
        return list(write_ldm_checkpoint(folder, part))
    return list(write_single_file(folder, part, dtype=precision))


def _fill(source: Path, config: ReadingSettings, folder: Path, precision: SavePrecision | None) -> list[str]:
    """Fill an empty folder with a model in diffusers' layout."""
    if source.is_dir():
        model = ModelFolder.open(str(source), variant=config.variant)
        return write_pipeline(model, folder, precision=precision, allow_pickle=config.allow_pickle)
    described = Path(config.original_config).expanduser() if config.original_config is not None else None
    if precision is None:
        return list(_convert_file(source, config, described, folder))
    with working_folder(folder) as work:
        left_out = _convert_file(source, config, described, work)
        return [*left_out, *write_pipeline(ModelFolder.open(str(work)), folder, precision=precision)]


def _convert_file(source: Path, config: ReadingSettings, described: Path | None, folder: Path) -> tuple[str, ...]:
    return convert_single_file(
        source, folder, original_config=described, version=config.sd_version, allow_pickle=config.allow_pickle
    )


def _convert_lora(config: ConvertConfig, source: Path, target: Path) -> Conversion:
    file = lora_file("source", str(source))
    form = lora_form(config.to, target, None)
    name = config.pretrained_model_name_or_path
    model = open_model(name, config) if name is not None else None
    lora = open_lora(file, model, allow_pickle=config.allow_pickle)
    with writing_lora(target, form) as part:
        said = write_form(
            form,
            lora.pairs,
            part,
            precision=config.save_precision,
            wanted=lora.precision,
            header=lora.header,
            model=model,
            what=str(file),
        )
    made = f"a LoRA of {len(lora.pairs)} layers in the form of {form}{f', {said}' if said else ''}"
    notes = found_by(target, form, model, allow_pickle=config.allow_pickle)
    return Conversion(target, made, lora.left_out, notes=notes)
