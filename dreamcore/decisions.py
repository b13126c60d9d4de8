"""What the settings decide of a run, all read before any of its work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import Backend
from .choices import (
    Rates,
    Rhythm,
    family_inputs,
    guidance,
    noise_schedule,
    sampler,
    settings_to_write,
    total_updates,
    variants,
)
from .config import TrainConfig
from .config.train import ExportFormat
from .config.used import Context, acting
from .diffusion import NoiseSchedule
from .families import FamilyInputs
from .inputs import Inputs
from .latentcache import LatentCache, encoder_identity
from .plan import Plan, Share
from .prior import ClassImages
from .runs.overlaps import class_folder
from .validation import Pictures, ValidationPictures


@dataclass(frozen=True)
class ClassPlan:
    """One concept's prior preservation as the settings ask for it."""

    images: ClassImages
    pictures: Pictures
    count: int


@dataclass(frozen=True)
class Decisions:
    """What the settings decide of a run."""

    classes: Mapping[int, ClassPlan]
    """By concept, where it has a prior."""
    plan: Plan
    rates: Rates
    rhythm: Rhythm
    schedule: NoiseSchedule
    family: FamilyInputs
    weighting: tuple[float, float | None, float, float]
    """The prior's weight, min-SNR's gamma, the noise's offset, the captions' dropout."""
    outside: float | None
    """The loss's weight outside a mask."""
    pictures: ValidationPictures | None
    latent_bytes: float | None
    """Of memory, for latents made ahead; None where every update encodes its own."""
    kept: LatentCache | None
    reset_optimizer: bool
    logging_dir: Path
    export_format: ExportFormat
    settings: dict[str, Any]
    """The resolved settings."""


def decide(
    config: TrainConfig, inputs: Inputs, folder: Path, context: Context, backend: Backend, trained: list[str]
) -> Decisions:
    """Read what is left of the settings.

    Args:
        context: which settings act in.
        trained: the components that train.

    Raises:
        ConfigError: a setting that does not fit the others.
    """
    classes = _class_plans(config, inputs, folder) if config.with_prior_preservation else {}
    plan = _plan(config, inputs, classes, backend.world.size)
    total = total_updates(config, plan.updates_per_epoch)
    pictures = ValidationPictures.from_config(config, inputs)
    validates = pictures is not None or bool(inputs.held_out)
    memory = config.cache_memory_gb * 2**30 if config.cache_latents else None
    kept = None
    if memory is not None and config.latent_cache_dir is not None:
        encoder = encoder_identity(inputs.model, str(context.backend), backend.device_name())
        kept = LatentCache(Path(config.latent_cache_dir).expanduser(), encoder)
    prior_weight = config.prior_loss_weight if classes else 1.0
    return Decisions(
        classes=classes,
        plan=plan,
        rates=Rates.from_config(config, trained, plan.samples_per_update, total),
        rhythm=Rhythm.from_config(config, plan.updates_per_epoch, validates=validates),
        schedule=noise_schedule(config, inputs.model),
        family=family_inputs(config, inputs.model),
        weighting=(prior_weight, config.snr_gamma, config.noise_offset, config.caption_dropout),
        outside=config.outside_weight if config.masked_loss else None,
        pictures=pictures,
        latent_bytes=memory,
        kept=kept,
        reset_optimizer=config.resume_from_checkpoint is not None and config.reset_optimizer,
        logging_dir=folder / config.logging_dir,
        export_format=config.export_format,
        settings=settings_to_write(acting(config, context))
        | ({"validation_prompt": pictures.pictures.prompt} if pictures else {}),
    )


def _plan(config: TrainConfig, inputs: Inputs, classes: Mapping[int, ClassPlan], world_size: int) -> Plan:
    counts = {number: one.count for number, one in classes.items()}
    return Plan(
        seed=config.seed,
        shares=tuple(
            Share(len(s.images.photos), counts.get(number, 0), s.concept.repeats, s.concept.weight)
            for number, s in enumerate(inputs.subjects)
        ),
        batch_size=config.train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        world_size=world_size,
        instance_variants=variants(config, config.instance_variants),
        class_variants=variants(config, config.class_variants) if classes else 1,
    )


def _class_plans(config: TrainConfig, inputs: Inputs, output: Path) -> dict[int, ClassPlan]:
    """By number, the concepts that have a prior."""
    plans = {}
    for number, subject in enumerate(inputs.subjects):
        concept = subject.concept
        if concept.class_prompt is not None:
            folder = class_folder(output, number, concept)
            plans[number] = _class_plan(config, inputs, concept.class_prompt, folder)
    return plans


def _class_plan(config: TrainConfig, inputs: Inputs, prompt: str, folder: Path) -> ClassPlan:
    pictures = Pictures(
        prompt,
        "",
        config.prior_num_inference_steps,
        guidance(config.prior_guidance_scale, inputs.model),
        sampler(None, inputs.model, "class images"),
        inputs.latent_shape,
        config.sample_batch_size,
        for_training=True,
    )
    recipe = {
        "prompt": pictures.prompt,
        "model": inputs.model.fingerprint,
        "scheduler": pictures.scheduler,
        "num_inference_steps": pictures.steps,
        "guidance_scale": pictures.guidance_scale,
        "height": inputs.crop.height,
        "width": inputs.crop.width,
    }
    return ClassPlan(ClassImages(folder, recipe, config.background), pictures, config.num_class_images)
