"""Everything that a run needs before its first update, made in the order in which mistakes are cheapest to report:
settings and photographs, the run folder, the checkpoint, and only then the framework and the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .backend import Backend, choose_backend, launch_rank, load_backend
from .batches import Batcher
from .bpe import Tokenizer
from .checkpoint import prune
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
from .data import ImageFolder
from .inputs import Inputs, check_inputs
from .latentcache import LatentCache, encoder_identity
from .latents import Images, Latents
from .memory import PeakMemory
from .plan import CLASS, INSTANCE, Plan, Sample, Share
from .prior import ClassImages
from .prompts import Words, identifier_words, warn_of_known_words, warn_of_words
from .resume import Resumed, find_resumed, set_damaged_aside
from .runfolder import RunFolder
from .track import Trackers, make_trackers
from .validation import HeldOut, Pictures, ValidationPictures

XFORMERS = (
    "enable_xformers_memory_efficient_attention: xformers is not used; the framework's own attention "
    "(scaled_dot_product_attention) needs as little memory"
)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its first update."""

    inputs: Inputs
    folder: Path
    run_folder: RunFolder | None
    """None but on the main process, which alone writes."""
    trackers: Trackers
    backend: Backend
    memory: PeakMemory
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
    export_format: ExportFormat


@dataclass(frozen=True)
class _ClassPlan:
    """One concept's prior preservation as the settings ask for it."""

    images: ClassImages
    pictures: Pictures
    count: int


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
    if config.enable_xformers_memory_efficient_attention:
        trackers.message(XFORMERS)
    reset_optimizer = resumes and config.reset_optimizer
    classes = _class_plans(config, inputs, folder) if config.with_prior_preservation else {}
    plan = _plan(config, inputs, classes, backend.world.size)
    total = total_updates(config, plan.updates_per_epoch)
    rates = Rates.from_config(config, trained, plan.samples_per_update, total)
    pictures = ValidationPictures.from_config(config, inputs)
    schedule, family = noise_schedule(config, inputs.model), family_inputs(config, inputs.model)
    validates = pictures is not None or bool(inputs.held_out)
    rhythm = Rhythm.from_config(config, plan.updates_per_epoch, validates=validates)
    memory = config.cache_memory_gb * 2**30 if config.cache_latents else None
    dropout = config.caption_dropout
    kept = None
    if memory is not None and config.latent_cache_dir is not None:
        encoder = encoder_identity(inputs.model, name, backend.device_name())
        kept = LatentCache(Path(config.latent_cache_dir).expanduser(), encoder)
    outside = config.outside_weight if config.masked_loss else None
    weighting = (config.prior_loss_weight if classes else 1.0, config.snr_gamma, config.noise_offset, dropout)
    logging_dir, layout = folder / config.logging_dir, config.export_format
    _ = config.pre_compute_text_embeddings  # done in any case; `TrainConfig.check` refuses what would contradict it
    config.refuse_unread(f"backend {name}")

    if run_folder:
        _claim(run_folder, resumed, settings_to_write(config), rhythm.checkpoints_kept)
    memory_of = PeakMemory(backend, trackers.message)
    class_folders = {number: _complete_classes(one, backend, trackers) for number, one in classes.items()}
    if classes:
        memory_of.end("making class images")
    identity = _identity(config, inputs, class_folders, plan, name)
    if resumed:
        resumed.check_identity(identity)
        _load_state(backend, resumed, trackers, reset_optimizer=reset_optimizer)
    first = resumed.update if resumed else 0

    words, encoders = _words(inputs, classes, empty=dropout > 0), len(inputs.model.text_encoders)
    for subject in inputs.subjects:
        identifier = identifier_words(subject.concept.instance_prompt, subject.concept.class_prompt)
        warn_of_words(backend, encoders, [], identifier, warn)
        if subject.concept.class_prompt is not None:  # otherwise the words of the class are among them
            warn_of_known_words(Tokenizer.open(inputs.model), identifier, warn)
    warn_of_words(backend, encoders, words.prompts, [], warn)
    looked_at = [pictures.pictures.prompt, pictures.pictures.negative_prompt] if pictures else []
    backend.set_prompts([*words.prompts, *looked_at])  # all at once, while the text encoders have the device
    memory_of.end("encoding words")
    held_out = None
    if inputs.held_out and run_folder:
        held_out = HeldOut.encode(inputs.held_out, words, schedule, family, config.seed, backend)
    latents = Latents(
        config.seed, _images(inputs, class_folders, outside), backend.encode_images, memory or 0, folder, kept
    )
    batcher = Batcher(plan, schedule, latents, words, *weighting, family)
    if memory is not None:
        _encode(latents, plan.images_used(first, total, rank), trackers)
    memory_of.end("encoding images")
    backend.park()
    return Prepared(
        inputs, folder, run_folder, trackers, backend, memory_of, batcher, rates, rhythm, pictures, held_out, first,
        settings_to_write(config), identity, logging_dir,
        [photo.path for part in class_folders.values() for photo in part.photos], layout,
    )  # fmt: skip


def _plan(config: TrainConfig, inputs: Inputs, classes: Mapping[int, _ClassPlan], world_size: int) -> Plan:
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
        instance_variants=variants(config, lambda: config.instance_variants),
        class_variants=variants(config, lambda: config.class_variants) if classes else 1,
    )


def _words(inputs: Inputs, classes: Mapping[int, _ClassPlan], *, empty: bool) -> Words:
    of_image: dict[tuple[int, int], Sequence[Sequence[str]]] = {}
    for number, subject in enumerate(inputs.subjects):
        of_image[number, INSTANCE] = subject.prompts
    for number, one in classes.items():
        of_image[number, CLASS] = [[one.pictures.prompt]] * one.count
    return Words.collect(of_image, [text for part in inputs.held_out for text in part.prompts], empty=empty)


def _class_plans(config: TrainConfig, inputs: Inputs, output: Path) -> dict[int, _ClassPlan]:
    """By number, the concepts that have a prior."""
    plans = {}
    for number, subject in enumerate(inputs.subjects):
        concept = subject.concept
        if concept.class_prompt is not None:
            own = output / ("class_images" if number == 0 else f"class_images_{number + 1}")
            folder = Path(concept.class_data_dir).expanduser() if concept.class_data_dir else own
            plans[number] = _class_plan(config, inputs, concept.class_prompt, folder)
    return plans


def _class_plan(config: TrainConfig, inputs: Inputs, prompt: str, folder: Path) -> _ClassPlan:
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
    return _ClassPlan(ClassImages(folder, recipe, config.background), pictures, config.num_class_images)


def _complete_classes(classes: _ClassPlan, backend: Backend, trackers: Trackers) -> ImageFolder:
    def make(seeds: Any) -> Any:
        return classes.pictures.make(backend, seeds)

    batch_size = classes.pictures.batch_size
    return classes.images.complete(classes.count, make, batch_size, backend.world, trackers.message)


def _claim(
    run_folder: RunFolder, resumed: Resumed | None, settings: dict[str, Any], checkpoints_kept: int | None
) -> None:
    """From here on the folder is this run's."""
    if resumed is None:
        run_folder.clear()
    else:
        set_damaged_aside(run_folder.path, resumed.update)
        prune(run_folder.path, resumed.update, checkpoints_kept)  # a killed run may have left one too many
    run_folder.write_config(settings)


def _load_state(backend: Backend, resumed: Resumed, trackers: Trackers, *, reset_optimizer: bool) -> None:
    if reset_optimizer:
        trackers.message(f"the weights of {resumed.folder.name}, and an optimizer that starts afresh", "warning")
        backend.load_state(resumed.folder, reset_optimizer=True)
    else:
        backend.load_state(resumed.folder)


def _identity(
    config: TrainConfig, inputs: Inputs, class_folders: Mapping[int, ImageFolder], plan: Plan, backend: str
) -> dict[str, Any]:
    from . import __version__

    return {
        "dreambooth": __version__,
        "backend": backend,
        "model": inputs.model.fingerprint,
        "instance_data": _together([subject.images for subject in inputs.subjects]),
        "class_data": _together(list(class_folders.values())),
        "samples_per_update": plan.samples_per_update,
        "settings": config.model_dump(mode="json"),
    }


def _together(folders: Sequence[ImageFolder]) -> str | None:
    """The fingerprint of several folders."""
    if len(folders) < 2:
        return folders[0].fingerprint if folders else None
    return hashlib.sha256("".join(folder.fingerprint for folder in folders).encode()).hexdigest()


def _images(
    inputs: Inputs, class_folders: Mapping[int, ImageFolder], outside: float | None
) -> dict[tuple[int, int], Images]:
    """By concept and row kind; class images have no masks."""
    images = {(n, INSTANCE): Images(s.images, s.crops, outside) for n, s in enumerate(inputs.subjects)}
    crop = replace(inputs.crop, subject=False)
    classes = {(n, CLASS): Images(folder, inputs.crops(folder, crop)) for n, folder in class_folders.items()}
    return images | classes


def _encode(latents: Latents, samples: Iterable[Sample], trackers: Trackers) -> None:
    def progress(done: int, of: int) -> None:
        if done == of or done % 100 == 0:
            trackers.message(f"encoded {done} of {of} image variants")

    latents.fill(samples, progress)
