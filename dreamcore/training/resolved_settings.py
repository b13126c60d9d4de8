"""What the settings decide of a run, all read before any of its work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backends.protocol import Backend
from ..config import TrainConfig
from ..config.output import ExportFormat, SavePrecision
from ..config.used import Context, acting
from ..diffusion.schedule import NoiseSchedule
from ..families import FamilyInputs
from ..models.settings import encoder_dropout, family_inputs, guidance, sampler
from ..runs.layout import LAYOUTS, Names
from ..runs.overlaps import class_folder
from ..text.prompts import places
from .batches import Weighting
from .class_images import ClassImages
from .image_sampler import ImageSampler
from .intervals import Intervals
from .latent_cache import LatentCache, encoder_identity
from .learning_rate import LearningRates
from .sample_plan import Plan, Share
from .settings import noise_schedule, settings_to_write, snr_bound, total_updates, variants
from .training_data import TrainingData
from .validation import ValidationImages


@dataclass(frozen=True)
class ClassPlan:
    """One concept's prior preservation as the settings ask for it."""

    images: ClassImages
    sampler: ImageSampler
    count: int


@dataclass(frozen=True)
class HeaderSettings:
    """What of a run's files' headers is a matter of choice."""

    private: bool
    """Whether captions and folders stand there."""
    title: str | None
    author: str | None
    comment: str | None

    @classmethod
    def from_config(cls, config: TrainConfig) -> HeaderSettings | None:
        """None where files are to say nothing of themselves, or are none of LoRA."""
        if not config.use_lora or config.lora_metadata == "none":
            return None
        private = config.lora_metadata == "all"
        return cls(private, config.metadata_title, config.metadata_author, config.training_comment)


@dataclass(frozen=True)
class ResolvedSettings:
    """What the settings decide of a run."""

    classes: Mapping[int, ClassPlan]
    """By concept, where it has a prior."""
    plan: Plan
    rates: LearningRates
    intervals: Intervals
    schedule: NoiseSchedule
    family: FamilyInputs
    weighting: Weighting
    outside_weight: float | None
    """The loss's weight outside a mask."""
    validation: ValidationImages | None
    final_validation: ValidationImages | None
    """After the last update, where it has a prompt of its own."""
    latent_bytes: float | None
    """Of memory, for latents made ahead; None where every update encodes its own."""
    latent_cache: LatentCache | None
    """On disk, for later runs."""
    reset_optimizer: bool
    logging_dir: Path
    export_format: ExportFormat
    saves_text_encoders: bool
    """Whether the finished model holds them."""
    save_precision: SavePrecision
    """Of the finished model's files."""
    header: HeaderSettings | None
    """Of LoRA files."""
    names: Names
    """Second names of results."""
    settings: dict[str, Any]
    """The resolved settings."""


def resolve_settings(
    config: TrainConfig, data: TrainingData, folder: Path, context: Context, backend: Backend, trained: list[str]
) -> ResolvedSettings:
    """Read what is left of the settings.

    Args:
        context: which settings act in.
        trained: the components that train.

    Raises:
        ConfigError: a setting that does not fit the others.
    """
    classes = _class_plans(config, data, folder) if config.with_prior_preservation else {}
    plan = _plan(config, data, classes, backend.world.size)
    total = total_updates(config, plan.updates_per_epoch)
    validation = ValidationImages.from_config(config, data)
    last = config.final_validation_prompt if validation and not config.skip_final_inference else None
    final = ValidationImages.from_config(config, data, last) if last is not None else None
    validates = validation is not None or bool(data.held_out)
    memory = config.cache_memory_gb * 2**30 if config.cache_latents else None
    latent_cache = None
    if memory is not None and config.latent_cache_dir is not None:
        device = backend.device_name() + ("" if config.vae_precision == "fp32" else f", {config.vae_precision}")
        encoder = encoder_identity(data.model, str(context.backend), device)
        latent_cache = LatentCache(Path(config.latent_cache_dir).expanduser(), encoder)
    prior_weight = config.prior_loss_weight if classes else 1.0
    schedule = noise_schedule(config, data.model)
    return ResolvedSettings(
        classes=classes,
        plan=plan,
        rates=LearningRates.from_config(config, trained, plan.samples_per_update, total),
        intervals=Intervals.from_config(config, plan.updates_per_epoch, validates=validates),
        schedule=schedule,
        family=family_inputs(config, data.model),
        weighting=Weighting(
            prior_weight,
            config.diff_output_preservation_multiplier if config.preserves_output else 1.0,
            snr_bound(config, schedule),
            config.noise_offset,
            config.caption_dropout,
            encoder_dropout(config, data.model),
            config.vae_encode_mode == "sample",
        ),
        outside_weight=config.outside_weight if config.masked_loss else None,
        validation=validation,
        final_validation=final,
        latent_bytes=memory,
        latent_cache=latent_cache,
        reset_optimizer=config.resume_from_checkpoint is not None and config.reset_optimizer,
        logging_dir=folder / config.logging_dir,
        export_format=config.export_format,
        saves_text_encoders=config.use_lora or not config.skip_save_text_encoder,
        save_precision=config.save_precision if config.export_format == "diffusers" else "fp32",
        header=HeaderSettings.from_config(config),
        names=LAYOUTS[config.layout],
        settings=settings_to_write(acting(config, _of_training(config, data, context)))
        | ({"validation_prompt": validation.sampler.prompt} if validation else {})
        | ({"final_validation_prompt": final.sampler.prompt} if final else {}),
    )


def _of_training(config: TrainConfig, data: TrainingData, context: Context) -> Context:
    """A context without the places of validation prompts, which are written with their places filled."""
    config = config.model_copy(update={"validation_prompt": None, "final_validation_prompt": None})
    return replace(context, places=places(config, [(subject.concept, subject.images) for subject in data.subjects]))


def _plan(config: TrainConfig, data: TrainingData, classes: Mapping[int, ClassPlan], world_size: int) -> Plan:
    counts = {number: one.count for number, one in classes.items()}
    return Plan(
        seed=config.seed,
        shares=tuple(
            Share(len(s.images.photos), counts.get(number, 0), s.concept.repeats, s.concept.weight, bool(s.preserved))
            for number, s in enumerate(data.subjects)
        ),
        batch_size=config.train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        world_size=world_size,
        instance_variants=variants(config, config.instance_variants),
        class_variants=variants(config, config.class_variants) if classes else 1,
    )


def _class_plans(config: TrainConfig, data: TrainingData, output: Path) -> dict[int, ClassPlan]:
    """By number, the concepts that have a prior."""
    plans = {}
    for number, subject in enumerate(data.subjects):
        concept = subject.concept
        if (words := config.class_words(concept)) is not None:
            folder = class_folder(output, number, concept)
            plans[number] = _class_plan(config, data, words, folder)
    return plans


def _class_plan(config: TrainConfig, data: TrainingData, prompt: str, folder: Path) -> ClassPlan:
    images = ImageSampler(
        prompt,
        "",
        config.prior_num_inference_steps,
        guidance(config.prior_guidance_scale, data.model),
        sampler(None, data.model, "class images"),
        data.latent_shape,
        config.sample_batch_size,
        for_training=True,
    )
    recipe = {
        "prompt": images.prompt,
        "model": data.model.fingerprint,
        "scheduler": images.scheduler,
        "num_inference_steps": images.steps,
        "guidance_scale": images.guidance_scale,
        "height": data.crop.height,
        "width": data.crop.width,
    }
    return ClassPlan(ClassImages(folder, recipe, config.background), images, config.num_class_images)
