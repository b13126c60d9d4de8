"""Everything that a run needs before its first update, made in the order in which mistakes are cheapest to report:
settings and photographs, the run folder, the checkpoint, and only then the framework and the model."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import Backend, choose_backend, launch_rank, load_backend
from .batches import Batcher, Words
from .choices import (
    Rates,
    Rhythm,
    identifier_words,
    settings_to_write,
    total_updates,
    variants,
    warn_of_words,
)
from .config import TrainConfig
from .data import Crop, ImageFolder
from .inputs import Inputs, check_inputs
from .latents import Images, Latents
from .plan import CLASS, INSTANCE, Plan, Sample
from .prior import ClassImages
from .resume import Resumed, find_resumed, set_damaged_aside
from .runfolder import RunFolder
from .track import Trackers, make_trackers
from .validation import HeldOut, Pictures, ValidationPictures


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its first update."""

    inputs: Inputs
    folder: Path
    run_folder: RunFolder | None
    """None but on the main process, which alone writes."""
    trackers: Trackers
    backend: Backend
    batcher: Batcher
    rates: Rates
    rhythm: Rhythm
    pictures: ValidationPictures | None
    held_out: HeldOut | None
    first: int
    """Updates that a resumed run has behind it."""
    settings: dict[str, Any]
    """The resolved settings."""
    identity: dict[str, Any]
    """What a checkpoint says of the run it belongs to."""
    logging_dir: Path
    class_images: list[Path]


@dataclass(frozen=True)
class _ClassPlan:
    """Prior preservation as the settings ask for it."""

    images: ClassImages
    pictures: Pictures
    count: int
    weight: float
    prompt: str


def prepare(config: TrainConfig, stack: ExitStack) -> Prepared:
    """Prepare a run; what it holds open is released by `stack`."""
    name = choose_backend(config.backend)
    rank = launch_rank(name)
    trackers = make_trackers(config.report_to, main_process=rank == 0)

    def warn(text: str) -> None:
        trackers.message(text, "warning")

    inputs = check_inputs(config, warn)
    folder = Path(config.output_dir).expanduser()
    resumes, overwrite = config.resume_from_checkpoint is not None, config.overwrite_output_dir
    components = inputs.model.components
    run_folder = RunFolder(folder, components, resume=resumes, overwrite=overwrite) if rank == 0 else None
    if run_folder:
        stack.callback(run_folder.release)
    resumed = find_resumed(config, folder, warn) if resumes else None

    backend = load_backend(name, inputs.model, config)
    trackers.message(f"{inputs.model.family.name} on {name}, {backend.device_name()}")
    trained = backend.prepare_training(config)
    classes = _class_plan(config, inputs, folder) if config.with_prior_preservation else None
    plan = _plan(config, inputs, classes, backend.world.size)
    total = total_updates(config, plan.updates_per_epoch)
    rates = Rates.from_config(config, trained, plan.samples_per_update, total)
    pictures = ValidationPictures.from_config(config, inputs.latent_shape)
    validates = pictures is not None or inputs.held_out is not None
    rhythm = Rhythm.from_config(config, plan.updates_per_epoch, validates=validates)
    memory = config.cache_memory_gb * 2**30 if config.cache_latents else None
    dropout = config.caption_dropout
    weighting = (classes.weight if classes else 1.0, config.snr_gamma, config.noise_offset, dropout)
    if config.snr_gamma is not None:
        inputs.model.schedule.check_min_snr(config.snr_gamma)
    logging_dir = folder / config.logging_dir
    _ = config.pre_compute_text_embeddings  # done in any case; `TrainConfig.check` refuses what would contradict it
    config.refuse_unread(f"backend {name}")

    if run_folder:
        _claim(run_folder, resumed, settings_to_write(config))
    class_folder = _complete_classes(classes, backend, trackers) if classes else None
    identity = _identity(config, inputs, class_folder, plan, name)
    if resumed:
        resumed.check_identity(identity)
        backend.load_state(resumed.folder)
    first = resumed.update if resumed else 0

    words = Words.collect(
        inputs.prompts + inputs.held_out_prompts, [classes.prompt] * plan.classes if classes else [], empty=dropout > 0
    )
    identifier = identifier_words(config.instance_prompt, config.class_prompt if classes else None)
    warn_of_words(backend, words.prompts, identifier, warn)
    backend.set_prompts(words.prompts)
    held_out = _held_out(inputs, words, config.seed, backend) if inputs.held_out else None
    latents = Latents(config.seed, _images(inputs, class_folder), backend.encode_images, memory or 0, folder)
    batcher = Batcher(plan, inputs.model.schedule, latents, words, *weighting)
    if memory is not None:
        _encode(latents, plan.images_used(first, total, rank), trackers)
    backend.park()
    return Prepared(
        inputs, folder, run_folder, trackers, backend, batcher, rates, rhythm, pictures, held_out, first,
        settings_to_write(config), identity, logging_dir,
        [photo.path for photo in class_folder.photos] if class_folder else [],
    )  # fmt: skip


def _plan(config: TrainConfig, inputs: Inputs, classes: _ClassPlan | None, world_size: int) -> Plan:
    return Plan(
        seed=config.seed,
        instances=len(inputs.instances.photos),
        classes=classes.count if classes else 0,
        batch_size=config.train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        world_size=world_size,
        instance_variants=variants(config, lambda: config.instance_variants),
        class_variants=variants(config, lambda: config.class_variants) if classes else 1,
    )


def _class_plan(config: TrainConfig, inputs: Inputs, output: Path) -> _ClassPlan:
    assert config.class_prompt is not None, "TrainConfig.check asks for it"
    pictures = Pictures(
        config.class_prompt,
        "",
        config.prior_num_inference_steps,
        config.prior_guidance_scale,
        "ddim",
        inputs.latent_shape,
        config.sample_batch_size,
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
    folder = Path(config.class_data_dir).expanduser() if config.class_data_dir else output / "class_images"
    images = ClassImages(folder, recipe)
    return _ClassPlan(images, pictures, config.num_class_images, config.prior_loss_weight, config.class_prompt)


def _complete_classes(classes: _ClassPlan, backend: Backend, trackers: Trackers) -> ImageFolder:
    def make(seeds: Any) -> Any:
        return classes.pictures.make(backend, seeds)

    batch_size = classes.pictures.batch_size
    return classes.images.complete(classes.count, make, batch_size, backend.world, trackers.message)


def _claim(run_folder: RunFolder, resumed: Resumed | None, settings: dict[str, Any]) -> None:
    """From here on the folder is this run's."""
    if resumed is None:
        run_folder.clear()
    else:
        set_damaged_aside(run_folder.path, resumed.update)
    run_folder.write_config(settings)


def _identity(
    config: TrainConfig, inputs: Inputs, class_folder: ImageFolder | None, plan: Plan, backend: str
) -> dict[str, Any]:
    from . import __version__

    return {
        "dreambooth": __version__,
        "backend": backend,
        "model": inputs.model.fingerprint,
        "instance_data": inputs.instances.fingerprint,
        "class_data": class_folder.fingerprint if class_folder else None,
        "samples_per_update": plan.samples_per_update,
        "settings": config.model_dump(mode="json"),
    }


def _images(inputs: Inputs, class_folder: ImageFolder | None) -> dict[int, Images]:
    images = {INSTANCE: Images(inputs.instances, inputs.crop)}
    return images | ({CLASS: Images(class_folder, inputs.crop)} if class_folder else {})


def _held_out(inputs: Inputs, words: Words, seed: int, backend: Backend) -> HeldOut:
    assert inputs.held_out is not None
    crop = Crop(inputs.crop.height, inputs.crop.width, center_crop=True, random_flip=False)
    prompts = [words.prompts.index(text) for text in inputs.held_out_prompts]
    return HeldOut.encode(inputs.held_out, crop, prompts, inputs.model.schedule, seed, backend)


def _encode(latents: Latents, samples: Iterable[Sample], trackers: Trackers) -> None:
    def progress(done: int, of: int) -> None:
        if done == of or done % 100 == 0:
            trackers.message(f"encoded {done} of {of} image variants")

    latents.fill(samples, progress)
