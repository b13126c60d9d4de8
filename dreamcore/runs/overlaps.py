"""No input may lie where a run writes its results: they would be replaced, or taken for inputs the next time.

Every place is compared as it lies on the disk, whatever links and relative paths lead there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import TrainConfig
from ..config.concepts import Concept
from ..errors import ConfigError
from ..io.files import free_name
from ..io.names import LORA_FILE, RECORDS, SAMPLES, SUBJECT, lora_name
from ..models.folder import ModelFolder
from .folder import MODEL_FILES, RESULTS
from .layout import LAYOUTS

CHECKPOINT = re.compile(r"checkpoint-(\d+|best).*")


class _Input(NamedTuple):
    """What a setting names."""

    setting: str
    path: Path
    deep: bool = False
    """With its sub-folders."""


def class_folder(output: Path, number: int, concept: Concept) -> Path:
    """Where the class images of the concept with this number are."""
    if concept.class_data_dir is not None:
        return Path(concept.class_data_dir).expanduser()
    return output / ("class_images" if number == 0 else f"class_images_{number + 1}")


def refuse_overlaps(config: TrainConfig, model: ModelFolder | None) -> None:
    """Refuse inputs that lie in, are or hold a place that the run writes to, and two settings that name one folder.

    Args:
        model: None where photographs alone are looked at.

    Raises:
        ConfigError: naming the setting, the path and what it meets.
    """
    output = Path(config.output_dir).expanduser()
    photographs, written = list(_photographs(config)), list(_written(config, output))
    others = [*(_model_parts(model) if model else ()), *_first_factors(config)]
    for own in written if config.has_output() else written[1:]:
        for other in [*photographs, *others, *(w for w in written[1:] if w.setting != own.setting)]:
            _refuse_meeting(own, other)
    for one in [*photographs, *others, *written[1:]] if config.has_output() else []:
        _refuse_results(one, output, [*(model.components if model else ()), *LAYOUTS[config.layout].folders])


def refuse_among_results(setting: str, files: Sequence[str], config: TrainConfig, model: ModelFolder) -> None:
    """Refuse single files that a setting names among a run's results.

    Raises:
        ConfigError: naming the setting and the file.
    """
    for file in files:
        one = _Input(setting, Path(file).expanduser())
        _refuse_results(one, Path(config.output_dir), [*model.components, *LAYOUTS[config.layout].folders])


def refuse_own_configuration(file: Path | None, output: Path) -> None:
    """Refuse a configuration file that the run would replace by its own.

    Raises:
        ConfigError: naming the file.
    """
    if file is not None and file.is_file() and file.resolve().parent == output.resolve() and file.name in RESULTS:
        raise ConfigError(
            f"config: {file}: is where the run in {output} writes its own {file.name}; copy it to another name or "
            "folder, and name that"
        )


def refuse_among_photographs(config: TrainConfig, sheet: Path) -> None:
    """Refuse a contact sheet that the next look at the photographs would take for one of them.

    Raises:
        ConfigError: naming both.
    """
    home = sheet.resolve().parent
    for one in _photographs(config):
        folder = one.path.resolve()
        if home == folder or (one.deep and home.is_relative_to(folder)):
            raise ConfigError(
                f"sheet: {sheet}: would lie among the photographs of {one.setting}, {one.path}, and be taken for one; "
                "give --sheet a file in another folder"
            )


def _photographs(config: TrainConfig) -> Iterator[_Input]:
    for number, concept in enumerate(config.subjects()):
        prefix = "" if config.concepts is None else f"concepts.{number}."
        setting, name = concept.source
        path = Path(name).expanduser()
        if setting != "dataset_name" or path.exists():
            yield _Input(prefix + setting, path, setting == "dataset_name" or config.sub_folders)
        if concept.validation_data_dir is not None:
            held_out = Path(concept.validation_data_dir).expanduser()
            yield _Input(f"{prefix}validation_data_dir", held_out, config.sub_folders)


def _written(config: TrainConfig, output: Path) -> Iterator[_Input]:
    """The folders that the run fills, its own first."""
    yield _Input("output_dir", output)
    for number, concept in enumerate(config.subjects()):
        if config.with_prior_preservation and concept.class_prompt is not None:
            yield _Input("class_data_dir", class_folder(output, number, concept))
    if config.cache_latents and config.latent_cache_dir is not None:
        yield _Input("latent_cache_dir", Path(config.latent_cache_dir).expanduser())


def _model_parts(model: ModelFolder) -> Iterator[_Input]:
    yield _Input("pretrained_model_name_or_path", model.path)
    for name in model.components:
        if name not in model.replaced:
            yield _Input("pretrained_model_name_or_path", model.folder(name), deep=True)
    for setting, folder in model.replaced.values():
        yield _Input(setting, folder, deep=True)


def _first_factors(config: TrainConfig) -> Iterator[_Input]:
    if config.use_lora and config.init_lora is not None:
        path = Path(config.init_lora).expanduser()
        yield _Input("init_lora", path / LORA_FILE if path.is_dir() else path)


def _refuse_results(one: _Input, output: Path, components: Sequence[str]) -> None:
    """Refuse an input among the results, by itself or through a link inside it."""
    for path in (one.path, *_links(one)):
        if (place := _result(path, output, components)) is None:
            continue
        through = "" if path == one.path else f", by the link {path}"
        raise ConfigError(
            f"{one.setting}: {one.path}: lies in {place}{through}, where a run in output_dir writes its results; move "
            f"it, or choose another output_dir, such as {free_name(output)}"
        )


def _result(path: Path, output: Path, components: Sequence[str]) -> Path | None:
    """The place among the results of a run in `output` that a path leads to."""
    real, home = path.resolve(), output.resolve()
    for name in (RECORDS, SAMPLES, SUBJECT, *components, *RESULTS, *MODEL_FILES, lora_name(home)):
        if real.is_relative_to((home / name).resolve()):
            return output / name
    if real != home and real.is_relative_to(home) and CHECKPOINT.fullmatch(first := real.relative_to(home).parts[0]):
        return output / first
    return None


def _links(one: _Input) -> Iterator[Path]:
    """The symbolic links in a folder."""
    waiting = [one.path] if one.path.is_dir() else []
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # who opens it says so
            continue
        yield from (Path(entry) for entry in entries if entry.is_symlink())
        waiting += [Path(entry) for entry in entries if one.deep and entry.is_dir(follow_symlinks=False)]


def _refuse_meeting(own: _Input, other: _Input) -> None:
    """Refuse a folder that the run fills where another setting names it too, or reads it among its sub-folders."""
    mine, theirs = own.path.resolve(), other.path.resolve()
    if mine == theirs:
        raise ConfigError(f"{own.setting}: {own.path}: is {other.setting} as well; choose another folder")
    if other.deep and mine.is_relative_to(theirs):
        raise ConfigError(
            f"{own.setting}: {own.path}: lies in {other.setting}, {other.path}, which is read with its sub-folders; "
            "choose a folder outside it"
        )
