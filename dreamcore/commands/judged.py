"""What `dreambooth evaluate` is to judge: a run, a model, a LoRA, or pictures; with its photographs and its words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig, load_config
from ..config.concepts import Concept
from ..config.evaluate import EvaluateConfig
from ..config.naming import names_of
from ..config.places import filled
from ..data import ImageFolder
from ..data.decode import decode_bytes
from ..data.finding import find_images
from ..errors import ConfigError
from ..evaluation import Picture
from ..evaluation.opening import TINYWORLD
from ..hub.client import is_repo_id
from ..io.names import CONFIG, EVALUATION, GENERATED, INDEX, LORA_FILE, STATE_FILE
from ..models.checkpoint_folder import is_checkpoint
from ..models.folder import ModelFolder
from ..training.training_data import open_held_out, open_photos, parted


@dataclass(frozen=True)
class Photographs:
    """Real ones of a subject."""

    names: list[str]
    pictures: list[Picture]


@dataclass(frozen=True)
class Made:
    """Pictures that are there already, with what is known of their making."""

    files: list[Path]
    prompts: list[str]
    """Of each; empty where nobody has written them down."""
    seeds: list[int]


@dataclass(frozen=True)
class Judged:
    """One subject."""

    name: str
    identifier: str
    class_word: str
    class_prompt: str
    trained_on: Photographs
    held_out: Photographs | None = None
    made: Made | None = None
    """Pictures of it; None where they are still to be made."""
    made_of_class: Made | None = None


@dataclass(frozen=True)
class Source:
    """What a command line's SOURCE is."""

    subjects: list[Judged]
    model: str | None
    """Which model it began with, as far as is known."""
    generate: Mapping[str, Any] | None
    """Settings of `generate` that name the model which makes the pictures; None where they are there."""


def find_source(config: EvaluateConfig, say: Callable[[str], None]) -> Source:
    """Look at SOURCE, and open its photographs.

    Raises:
        ConfigError: it is nothing that can be judged, or photographs or words are missing: naming the setting.
    """
    path = Path(config.source).expanduser()
    if (path / EVALUATION).is_file():
        return _evaluation(config, path)
    if (path / CONFIG).is_file():
        return _run(config, path, path, say)
    if (path / STATE_FILE).is_file() and (path.parent / CONFIG).is_file():
        return _run(config, path.parent, path, say)
    if path.is_dir() and not any((path / name).is_file() for name in (INDEX, LORA_FILE)):
        return _pictures(config, path)
    if not path.exists() and config.source != TINYWORLD and not is_repo_id(config.source):
        raise ConfigError(f"source: {path}: no such run, model, LoRA or folder of pictures")
    base = config.pretrained_model_name_or_path
    is_lora = (path / LORA_FILE).is_file() or (path.suffix == ".safetensors" and base is not None)
    named = {"lora": [config.source]} if is_lora else {"pretrained_model_name_or_path": config.source}
    if is_lora and base is None:
        raise ConfigError(f"pretrained_model_name_or_path: needed: the model that the LoRA {path} is for")
    if not is_lora and base is not None:
        raise ConfigError(f"pretrained_model_name_or_path: {base}: {config.source} is no LoRA; leave it out")
    for name in ("identifier", "class_word"):
        if getattr(config, name) is None:
            raise ConfigError(f"{name}: needed: {config.source} is no run, and does not say how its subject is called")
    assert config.identifier is not None and config.class_word is not None
    subject = Judged(
        f"{config.identifier} {config.class_word}",
        config.identifier,
        config.class_word,
        config.class_prompt or f"a photo of a {config.class_word}",
        _named_photographs(config),
        _held_out(config),
    )
    return Source([subject], base or config.source, named)


def _run(config: EvaluateConfig, run: Path, weights: Path, say: Callable[[str], None]) -> Source:
    """A run, by its own weights or by those of one of its checkpoints."""
    trained = load_config(TrainConfig, str(run / CONFIG))
    concepts = trained.subjects()
    given = [name for name in ("instance_data_dir", "validation_data_dir", "identifier", "class_word", "class_prompt")
             if getattr(config, name) is not None]  # fmt: skip
    if len(concepts) > 1 and given:
        raise ConfigError(f"{given[0]}: {run} has {len(concepts)} subjects, each with its own; leave it out")
    subjects = []
    for number, concept in enumerate(concepts):
        identifier, class_word = words_of(config, trained, concept, run)
        said = trained.class_words(concept) if concept.class_prompt is not None else None
        if config.instance_data_dir is not None:
            photographs, held_out = _named_photographs(config), _held_out(config)
        else:
            photographs, held_out = _own_photographs(config, trained, concept, number, say)
        subjects.append(
            Judged(
                f"{identifier} {class_word}",
                identifier,
                class_word,
                config.class_prompt or said or f"a photo of a {class_word}",
                photographs,
                held_out,
            )
        )
    if (weights / INDEX).is_file() or is_checkpoint(weights):
        ModelFolder.open(str(weights))  # whatever is amiss is said before a judge is looked for
        named: dict[str, Any] = {"pretrained_model_name_or_path": str(weights)}
    elif (weights / LORA_FILE).is_file():
        named = {"lora": [str(weights)]}
    else:
        raise ConfigError(f"source: {run}: the run there has no finished model yet; let it finish")
    return Source(subjects, trained.pretrained_model_name_or_path, named)


def words_of(config: EvaluateConfig, trained: TrainConfig, concept: Concept, run: Path) -> tuple[str, str]:
    """The rare word and the class that a concept was taught by: as given, as its settings say, or as its prompts tell.

    Raises:
        ConfigError: none of them tells.
    """
    told = names_of(trained, concept)
    identifier, class_word = config.identifier or told[0], config.class_word or told[1]
    prompt = filled(text, trained.words_for(concept, text)) if (text := concept.instance_prompt) else ""
    for name, value in (("identifier", identifier), ("class_word", class_word)):
        if not value:
            raise ConfigError(f"{name}: needed: {run} was taught by {prompt or 'captions'!r}, which does not tell it")
    assert identifier and class_word
    return identifier, class_word


def _own_photographs(
    config: EvaluateConfig, trained: TrainConfig, concept: Concept, number: int, say: Callable[[str], None]
) -> tuple[Photographs, Photographs | None]:
    """Those that a run has trained on, and those that it held out."""
    folder = open_photos(trained, concept, "", say)
    kept, held = parted(folder, trained.validation_share, trained.seed, number, concept.source[0])
    more = _held_out(config) or (_pixels(found) if (found := open_held_out(trained, concept, "", say)) else None)
    parts = [one for one in (_pixels(held) if held else None, more) if one is not None]
    both = Photographs([n for one in parts for n in one.names], [p for one in parts for p in one.pictures])
    return _pixels(kept), both if parts else None


def _pixels(folder: ImageFolder) -> Photographs:
    pictures = [_decoded(photo.data(), photo.path) for photo in folder.photos]
    return Photographs([str(photo.path) for photo in folder.photos], pictures)


def _decoded(data: bytes, path: Path) -> Picture:
    return np.asarray(decode_bytes(data, path).image.convert("RGB"))


def read_picture(path: Path) -> Picture:
    """A picture's pixels."""
    return _decoded(path.read_bytes(), path)


def _named_photographs(config: EvaluateConfig) -> Photographs:
    if config.instance_data_dir is None:
        raise ConfigError(f"instance_data_dir: needed: {config.source} is no run, and has no photographs of its own")
    return _folder("instance_data_dir", config.instance_data_dir)


def _held_out(config: EvaluateConfig) -> Photographs | None:
    held = config.validation_data_dir
    return None if held is None else _folder("validation_data_dir", held)


def _folder(setting: str, name: str) -> Photographs:
    return _pixels(ImageFolder.open(Path(name).expanduser(), setting=setting))


def _pictures(config: EvaluateConfig, folder: Path) -> Source:
    """Pictures that somebody has made; `generate` has written down what of."""
    made, model = Made([], [], []), None
    for record in sorted(folder.glob(f"{Path(GENERATED).stem}*.json")):
        content = _json(record)
        model = (content.get("settings") or {}).get("pretrained_model_name_or_path", model)
        listed = [one for one in content.get("pictures") or () if (folder / one["file"]).is_file()]
        for one in listed:
            made.files.append(folder / one["file"])
            made.prompts.append(str(one["prompt"]))
            made.seeds.append(int(one["seed"]))
    if not made.files:
        made = Made(find_images(folder, "source")[0], [], [])
    if not made.files:
        raise ConfigError(f"source: {folder}: no run, no model, no LoRA and no pictures there")
    subject = Judged(folder.resolve().name, "", "", "", _named_photographs(config), _held_out(config), made)
    return Source([subject], model, None)


def _evaluation(config: EvaluateConfig, folder: Path) -> Source:
    """An earlier evaluation, whose pictures are judged anew."""
    said = _json(folder / EVALUATION)
    try:
        subjects = [_judged_before(folder, one) for one in said["subjects"]]
        model = said["model"]
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder / EVALUATION}: damaged: {error!r}") from None
    if config.instance_data_dir is not None and len(subjects) == 1:
        subjects = [replace(subjects[0], trained_on=_named_photographs(config), held_out=_held_out(config))]
    return Source(subjects, model, None)


def _judged_before(folder: Path, said: Mapping[str, Any]) -> Judged:
    def made(listed: Sequence[Mapping[str, Any]]) -> Made:
        files = [folder / str(one["file"]) for one in listed]
        words = [str(one["prompt"]) for one in listed if one["prompt"] is not None]
        return Made(files, words, [int(one["seed"]) for one in listed if one["seed"] is not None])

    def photographs(names: Sequence[str]) -> Photographs:
        return Photographs(list(names), [read_photograph(name) for name in names])

    held = said["held_out"]
    return Judged(
        str(said["name"]),
        str(said["identifier"]),
        str(said["class_word"]),
        str(said["class_prompt"]),
        photographs(said["photographs"]),
        photographs(held) if held else None,
        made(said["pictures"]),
        made(said["class_pictures"]) if said["class_pictures"] else None,
    )


def read_photograph(name: str) -> Picture:
    """A photograph that an evaluation names.

    Raises:
        ConfigError: it is a row of a table, or is gone.
    """
    try:
        return read_picture(Path(name))
    except OSError:
        raise ConfigError(f"instance_data_dir: {name} is not there any more; name the photographs' folder") from None


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    return content if isinstance(content, Mapping) else {}
