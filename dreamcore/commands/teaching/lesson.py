"""A run that is ready to begin: all that was chosen for it, and the screen that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...config.compat.meaning import TOKEN
from ...config.teach import TeachConfig
from ...data.finding import look
from ...data.inspection import Inspection, inspect
from ...errors import ConfigError
from ...models.folder import ModelFolder
from ...placement.plan import Plan
from ...placement.remedies import cannot_fit
from ...training.memory_plan import advice
from ...training.training_data import Subject, TrainingData, bucket_choice, crop_of, open_subjects, open_training_data
from .choices import Choices, preset_memory, preset_side, updates_for, why_preset, why_updates
from .folders import new_folder
from .memory import find_fitting
from .models import Chosen
from .screen import Screen, memory_in_words, seconds_known
from .words import captions_of, choose_identifier, choose_words

Say = Callable[[str], None]


@dataclass(frozen=True)
class Lesson:
    """What is about to be done."""

    config: TrainConfig
    screen: Screen


def prepare(config: TeachConfig, photos: Path, class_word: str, chosen: Chosen, say: Say) -> Lesson:
    """Choose all that is left to choose; where the model is not here yet, all that can be without it.

    Raises:
        ConfigError: photographs or settings that training would not take; too little memory for any settings.
    """
    given = {name: value for name, value in config.own().items() if name != "class_word"}
    choices = _begin(config, chosen, given)
    count = _count(config, photos)
    captions = captions_of(photos, sub_folders=config.sub_folders)
    choices.choose("pretrained_model_name_or_path", chosen.name, chosen.why)
    choose_words(choices, class_word, captions)
    why_length = _choose_length(choices, count)
    output = new_folder(photos, class_word, lora=bool(choices.now("use_lora")))
    choices.choose("output_dir", str(output), "named after the photographs; no other run has trained there")
    output = Path(str(choices.now("output_dir"))).expanduser()
    there = ", where an earlier run of these was prepared" if "output_dir" not in given else ""
    said = f"{output}{there if output.exists() else ', a new folder'}"
    model, memory = chosen.folder, f"{preset_memory(choices.preset)}; it is planned once the model is here"
    if model is None:
        subjects = _opened_without(_with_any_identifier(config, choices), choices)
    else:
        subjects, memory = _fitted(config, choices, model, output)
    inspections = [inspect(subject.images, subject.crops) for subject in subjects]
    if model is not None:
        choose_identifier(choices, class_word, captions, model, say)
    made = made_config(config, choices) if model is not None else _with_any_identifier(config, choices)
    words = _in_words(choices, class_word, model)
    how = "LoRA" if choices.now("use_lora") else "all weights"
    screen = Screen(
        photos=photos,
        inspections=inspections,
        size=_size(inspections),
        chosen=chosen,
        preset=f"preset {choices.preset} ({how}), {choices.why_preset}",
        words=words,
        updates=(made.max_train_steps, why_length),
        memory=memory,
        seconds=seconds_known(made, output.absolute().parent),
        output=said,
    )
    return Lesson(made, screen)


def _begin(config: TeachConfig, chosen: Chosen, given: dict[str, Any]) -> Choices:
    """The preset's settings: the model's, or those of a preset that the user named."""
    if config.suggested:
        values = {name: value for name, value in config.given().items() if name in config.suggested}
        return Choices(given, "of yours", values, dict.fromkeys(values, "the preset that you named"), "as you named it")
    why = why_preset(chosen.folder.family.name if chosen.folder else chosen.name, chosen.preset)
    return Choices.of_preset(chosen.preset, given, why)


def _count(config: TeachConfig, photos: Path) -> int:
    """How many photographs there are.

    Raises:
        ConfigError: none.
    """
    found = look(photos, "instance_data_dir", sub_folders=config.sub_folders)
    if not found.images:
        skipped = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise ConfigError(
            f"instance_data_dir: {config.instance_data_dir}: no photographs in there{skipped}; put 3 to 20 of the "
            "subject into it, or add --sub_folders if they lie in folders of it"
        )
    return len(found.images)


def _choose_length(choices: Choices, photographs: int) -> str:
    """Choose the number of updates; why."""
    if choices.given.keys() & {"max_train_steps", "num_train_epochs"}:
        return "as you gave it"
    usual = choices.values.get("max_train_steps")
    if usual is None:
        return ""
    updates, why = updates_for(photographs, usual), why_updates(photographs, usual, choices.preset)
    if choices.values.get("validation_steps") == usual:
        choices.choose("validation_steps", updates, "images before the first update and after the last")
    choices.choose("max_train_steps", updates, why)
    return why


def made_config(config: TeachConfig, choices: Choices) -> TrainConfig:
    """The run's settings.

    Raises:
        ConfigError: what the user gave does not go together.
    """
    values = {**choices.values, **choices.given}
    if config.token is not None:
        values[TOKEN] = config.token
    suggested = choices.values.keys() - choices.given.keys()
    made = TrainConfig.from_mapping(values, suggested, notes=config.notes, file=config.file)
    return made.with_reasons(choices.reasons())


def _with_any_identifier(config: TeachConfig, choices: Choices) -> TrainConfig:
    """The run's settings before its identifier is known."""
    known = choices.now("identifier") is not None
    return made_config(config, choices if known else replace(choices, values={**choices.values, "identifier": "?"}))


def _fitted(config: TeachConfig, choices: Choices, model: ModelFolder, output: Path) -> tuple[list[Subject], str]:
    """Choose what fits in memory; the photographs as they are seen then, and the memory in words."""
    made = _with_any_identifier(config, choices)
    data = open_training_data(made, model, _nothing)
    fitting = find_fitting(made, data, output)
    for name, (value, why) in fitting.changes.items():
        choices.choose(name, value, why)
    if fitting.changes.keys() & {"resolution"}:
        made = _with_any_identifier(config, choices)
        data = open_training_data(made, model, _nothing)
    if fitting.plan is not None and not fitting.fits and cannot_fit(fitting.plan) and not made.ignore_memory_plan:
        raise ConfigError(_too_much(made, data, output, fitting.plan))
    return data.subjects, memory_in_words(fitting.plan, fitting.fits)


def _too_much(config: TrainConfig, data: TrainingData, output: Path, plan: Plan) -> str:
    said = advice(config, data, output, plan) or "memory: this model does not fit"
    return f"{said}.  A smaller model takes less (--model); --ignore_memory_plan begins all the same"


def _opened_without(config: TrainConfig, choices: Choices) -> list[Subject]:
    """The photographs as a model sees them that is not here: of the size that its preset is for."""
    side = config.resolution or preset_side(choices.preset)
    size = (config.height, config.width) if config.height and config.width else (side, side)
    crop = crop_of(config, *size)
    return open_subjects(config, crop, bucket_choice(config, crop, 8), _nothing)[0]


def _in_words(choices: Choices, class_word: str, model: ModelFolder | None) -> str:
    identifier, prompt = choices.now("identifier"), str(choices.now("instance_prompt"))
    filled = prompt.replace("{class}", class_word)
    if identifier is not None:
        filled = filled.replace("{identifier}", str(identifier))
        return f'"{filled}": {identifier}: {choices.reasons()["identifier"]}'
    if model is None and "{identifier}" in filled:
        return f'"{filled}": the identifier is a rare word of the model, looked for once it is here'
    return f'"{filled}"'


def _size(inspections: list[Inspection]) -> tuple[int, int]:
    """(H, W) of the first training image."""
    width, height = inspections[0].rows[0].target
    return height, width


def _nothing(text: str) -> None:
    """What is said twice otherwise: by the screen, and by the run."""
