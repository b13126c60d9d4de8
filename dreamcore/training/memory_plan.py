"""A run's plan of memory: made from headers and settings, said in a line, and refused where it cannot be kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..backends.installed import launch_rank
from ..config import TrainConfig
from ..data import find_images, storage
from ..errors import ConfigError
from ..placement.machine import find_machine
from ..placement.plan import Plan
from ..placement.remedies import advise_fitting, cannot_fit
from ..placement.stages import make_plan
from ..placement.workload import WAYS, Workload
from ..runs.overlaps import class_folder
from ..track import Trackers
from .settings import variants
from .training_data import TrainingData


def plan_memory(config: TrainConfig, data: TrainingData, folder: Path, backend: str) -> Plan | None:
    """The plan of a run; None for a backend of which it is not known how it places a model.

    Args:
        folder: the run's.
    """
    if backend not in WAYS:
        return None
    work = workload(config, data, folder)
    return make_plan(sized(config, data), data.model, work, find_machine(backend, config.device), backend)


def workload(config: TrainConfig, data: TrainingData, folder: Path) -> Workload:
    """What a plan asks of the photographs, their words and the class images that are there."""
    height, width = max(data.shapes, key=lambda shape: shape[0] * shape[1])
    said = {text for subject in data.subjects for wordings in subject.prompts for text in wordings}
    said |= {text for subject in data.subjects for wordings in subject.preserved for text in wordings}
    said |= {text for part in data.held_out for text in part.prompts}
    said |= {text for text in (config.validation_prompt, config.final_validation_prompt) if text is not None}
    said |= {""} if config.caption_dropout or config.validation_prompt is not None else set()
    count = sum(len(s.images.photos) for s in data.subjects) * variants(config, config.instance_variants)
    missing = 0
    for number, subject in enumerate(data.subjects):
        if config.with_prior_preservation and subject.concept.class_prompt is not None:
            said.add(subject.concept.class_prompt)
            count += config.num_class_images * variants(config, config.class_variants)
            there = class_folder(folder, number, subject.concept)
            found = len(find_images(there, "class_data_dir")[0]) if storage.is_folder(there) else 0
            missing += max(0, config.num_class_images - found)
    references = int(any(subject.images.refers for subject in data.subjects))
    return Workload(height, width, len(said), count, missing, bool(data.held_out), references)


def keep_to_plan(
    config: TrainConfig, data: TrainingData, folder: Path, backend: str, trackers: Trackers, *, refuses: bool
) -> Plan | None:
    """Make the plan, say it in a line, and refuse what cannot fit; of what may not, warn.

    Args:
        folder: the run's.
        refuses: whether what cannot fit is refused; else it is warned of.

    Raises:
        ConfigError: what lacks, and the settings that would make it fit, each with what it saves.
    """
    try:
        plan = plan_memory(config, data, folder, backend)
    except ConfigError:  # what is wrong with the model is said where it is loaded
        return None
    if plan is None:
        return None
    if launch_rank(backend) == 0:
        for line in filter(None, (plan.placed, plan.line())):
            trackers.message(line)
        trackers.detail(plan.in_words())
    said = advice(config, data, folder, plan)
    if said and refuses and cannot_fit(plan):
        raise ConfigError(f"{said}.  This is a prediction; --ignore_memory_plan begins all the same")
    if said:
        trackers.warn(said)
    return plan


def advice(config: TrainConfig, data: TrainingData, folder: Path, plan: Plan) -> str | None:
    """What does not fit, in words, and the settings that would make it fit; None where all does."""
    work, step = workload(config, data, folder), data.model.size_step

    def again(other: TrainConfig, shrunk: float) -> Plan:
        height, width = (int(side * shrunk) // step * step for side in (work.height, work.width))
        smaller = replace(work, height=height, width=width)
        return make_plan(other, data.model, smaller, plan.machine, plan.backend)

    return advise_fitting(plan, sized(config, data), again)


def sized(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The settings with the size of images in them."""
    if config.height is not None or config.resolution is not None:
        return config
    return config.model_copy(update={"resolution": data.crop.height})
