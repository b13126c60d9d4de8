"""Everything that a run needs before its first update, made in the order in which mistakes are cheapest to report:
settings and photographs, the run folder, the checkpoint, and only then the framework and the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backends.installed import choose_backend, launch_rank
from ..backends.out_of_memory import CLASSES, IMAGES, LOADING, PROMPTS, during
from ..backends.peak_memory import PeakMemory
from ..backends.protocol import Backend
from ..backends.registry import load_suggested
from ..config import TrainConfig
from ..config.optimizers import refuse_absent, settled
from ..config.selecting import scores
from ..config.used import Context, refuse_idle
from ..data import ImageFolder
from ..data.image_set import CLASS, INSTANCE, PRESERVED, ImageSet
from ..hub.client import with_token
from ..io.files import usable_folder
from ..io.hashing import file_sha256
from ..io.progress import progress, told
from ..models.folder import ModelFolder
from ..models.lora_files import find_lora
from ..models.settings import model_facts, refuse_before_fetching
from ..runs import RunFolder
from ..runs.checkpoint import prune
from ..runs.layout import output_folder
from ..runs.overlaps import refuse_own_configuration
from ..runs.resume import Resumed, earlier_settings, find_resumed, finished_before, finished_record, set_damaged_aside
from ..text.prompts import PromptTable, places
from ..track import LogFile, Trackers, make_trackers
from ..track.foreign import told_by_libraries
from ..version import __version__
from .batches import Batcher
from .data_warnings import prompt_owners, warn_of_cut_prompts, warn_of_data
from .latents import Images, Latents
from .learning_rate import idle_at_the_end, unusual_rate, warm_up_too_long
from .memory_plan import keep_to_plan
from .publishing import check_publishing
from .references import check_references
from .resolved_settings import ClassPlan, ResolvedSettings, resolve_settings
from .run_status import RunStatus
from .sample_plan import Plan
from .scoring import Scoring
from .second_names import check_layout
from .selection import Criterion
from .settings import decided, settle_defaults, settle_length, settle_rank
from .sharing import agreed_placing, refuse_unlike
from .training_data import TrainingData, open_training_data
from .upscaling import check_upscaling
from .validation import HeldOut, ValidationImages

XFORMERS = (
    "enable_xformers_memory_efficient_attention: xformers is not used; the framework's own attention "
    "(scaled_dot_product_attention) needs as little memory"
)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its first update."""

    config: TrainConfig
    data: TrainingData
    folder: Path
    run_folder: RunFolder | None
    """None but on the main process, which alone writes."""
    trackers: Trackers
    status: RunStatus
    backend: Backend
    memory: PeakMemory
    batcher: Batcher
    resolved: ResolvedSettings
    held_out: HeldOut | None
    first: int
    """Updates that a resumed run has behind it."""
    batches_ahead: bool
    """Whether a batch can be formed while networks are at work: the autoencoder is not asked for it."""
    identity: dict[str, Any]
    """What a checkpoint says of the run it belongs to."""
    class_images: dict[int, list[Path]]
    """Of each concept that has any, by its number."""
    scoring: Scoring | None = None
    """Of validation images, on the main process."""
    criterion: Criterion | None = None
    """What the best checkpoint is chosen by."""
    finished_at: int | None = None
    """The updates of the run in the folder, which had finished."""


@dataclass(frozen=True)
class Begun:
    """A run whose inputs are there and whose folder is held."""

    config: TrainConfig
    context: Context
    trackers: Trackers
    status: RunStatus
    """Written on the main process alone."""
    data: TrainingData
    folder: Path
    run_folder: RunFolder | None
    """None but on the main process, which alone writes."""
    resumed: Resumed | None
    finished: int | None
    """The updates of the run in the folder, where it has finished and nothing more is asked for."""
    finished_at: int | None
    """Its updates, whatever is asked for."""
    scoring: Scoring | None
    """Of validation images, on the main process."""
    criterion: Criterion | None
    """What the best checkpoint is chosen by."""


def begin(config: TrainConfig, stack: ExitStack) -> Begun:
    """Open a run's inputs and its folder, and change nothing there; what it holds open is released by `stack`."""
    name = choose_backend(config.backend)
    rank = launch_rank(name)
    trackers = make_trackers(config.report_to, main_process=rank == 0)
    status = RunStatus(trackers.warn)
    if rank == 0:
        trackers.append(status)
    stack.enter_context(told_by_libraries(trackers.message))
    stack.enter_context(told(*(one for one in trackers if isinstance(one, LogFile | RunStatus))))
    for note in config.notes:
        trackers.message(note)
    stack.enter_context(with_token(config.token))

    folder = output_folder(config.output_dir, config.layout, config.resume_from_checkpoint)
    config = config.model_copy(update={"output_dir": str(folder)})
    refuse_absent(config, name)
    refuse_before_fetching(config, name)
    model = ModelFolder.of(config)
    config, taken = settle_defaults(config, model.family)
    config, said = settle_rank(config, model)
    for line in filter(None, (taken, said)):
        trackers.message(line)
    data = open_training_data(config, model, trackers.warn)
    asked = places(config, [(subject.concept, subject.images) for subject in data.subjects])
    context = Context(name, model_facts(data.model), asked)
    refuse_idle(config, context)
    config = settled(config)
    check_layout(config, data.model)
    check_upscaling(config, data.model, folder)
    check_references(config, data, name)
    resumes, overwrite = config.resume_from_checkpoint is not None, config.overwrite_output_dir
    if not resumes:
        refuse_own_configuration(config.file, folder)
    run_folder = RunFolder(folder, data.model.components, stack) if rank == 0 else None
    resumed = find_resumed(config, folder, trackers.warn) if resumes else None
    ended = finished_record(folder) if resumes else None
    config, said = settle_length(config, data.model.family, earlier_settings(resumed, ended))
    if said is not None:
        trackers.message(said)
    trackers.detail(decided(config, name))
    finished = finished_before(config, folder, resumed, ended) if resumes else None
    if run_folder and finished is None:
        continues = resumed is not None and resumed.lies_in(folder)
        run_folder.check(continues=continues, may_replace=resumes or overwrite)
    if run_folder:
        check_publishing(config, folder)
    looked = ValidationImages.from_config(config, data)
    scoring = Scoring.of(config, data, looked.sampler.prompt) if looked and run_folder else None
    criterion = Criterion.from_config(config, scoring, measured=scores(config) or bool(data.held_out))
    return Begun(
        config=config,
        context=context,
        trackers=trackers,
        status=status,
        data=data,
        folder=folder,
        run_folder=run_folder,
        resumed=resumed,
        finished=finished,
        finished_at=int(ended["updates"]) if ended else None,
        scoring=scoring,
        criterion=criterion,
    )


def prepare(config: TrainConfig, stack: ExitStack) -> Prepared:
    """Prepare a run; what it holds open is released by `stack`."""
    return complete(begin(config, stack))


def complete(begun: Begun) -> Prepared:
    """Prepare what has begun for its first update."""
    config, context, trackers, data = begun.config, begun.context, begun.trackers, begun.data
    folder, run_folder, resumed = begun.folder, begun.run_folder, begun.resumed
    name = context.backend
    assert name is not None
    rank = launch_rank(name)

    if rank == 0:
        warn_of_data(config, data, trackers.warn, trackers.message)
    config, backend, memory, trained = _loaded(begun, name)
    resolved = resolve_settings(config, data, folder, context, backend, trained)
    for warning in (warm_up_too_long(resolved.rates), unusual_rate(config), idle_at_the_end(resolved.rates)):
        if warning is not None:
            trackers.warn(warning)

    identity = _identity(config, data, resolved.plan, name)
    refuse_unlike(identity, resumed.update if resumed else None, backend.world)
    if run_folder:
        _check_folders(resolved)
    if resumed:
        resumed.check_identity(identity)  # before class images are made; they are compared below
    elif run_folder:
        run_folder.clear(trackers.message)
        run_folder.write_config(resolved.settings, config.reasons)
        begun.status.begin(folder, 0, name, backend)
    prompts = _encode_prompts(data, resolved, backend, trackers.warn)
    memory.end(PROMPTS)
    class_folders = {number: _complete_classes(one, backend, trackers) for number, one in resolved.classes.items()}
    if class_folders:
        memory.end(CLASSES)
    identity["class_data"] = _together(list(class_folders.values()))
    refuse_unlike({"class_data": identity["class_data"]}, None, backend.world)
    if resumed:
        resumed.check_identity(identity)
        _load_state(backend, resumed, trackers, reset_optimizer=resolved.reset_optimizer)
        if run_folder:
            _go_on(run_folder, resumed, resolved, trackers.message)
            begun.status.begin(folder, resumed.update, name, backend)
    first = resumed.update if resumed else 0

    held_out = None
    if data.held_out:
        held_out = HeldOut.encode(data.held_out, prompts, resolved.schedule, resolved.family, config.seed, backend)
    latents = _latents(config, resolved, _images(data, class_folders, resolved.outside_weight), folder, backend)
    batcher = Batcher(resolved.plan, resolved.schedule, latents, prompts, resolved.weighting, resolved.family)
    if resolved.latent_bytes is not None:
        latents.fill(resolved.plan.images_used(first, resolved.rates.total, rank), backend.world)
    memory.end(IMAGES)
    backend.offload()
    return Prepared(
        config=config,
        data=data,
        folder=folder,
        run_folder=run_folder,
        trackers=trackers,
        status=begun.status,
        backend=backend,
        memory=memory,
        batcher=batcher,
        resolved=resolved,
        held_out=held_out,
        first=first,
        batches_ahead=resolved.latent_bytes is not None and resolved.plan.caches_all,
        identity=identity,
        class_images={n: [photo.path for photo in part.photos] for n, part in class_folders.items()},
        scoring=begun.scoring,
        criterion=begun.criterion,
        finished_at=begun.finished_at,
    )


def _loaded(begun: Begun, name: str) -> tuple[TrainConfig, Backend, PeakMemory, list[str]]:
    """The model, ready to train where the plan of memory admits it: settings with what the model suggests, the backend,
    what watches memory, and the components that train."""
    config, data, trackers = begun.config, begun.data, begun.trackers
    plan = keep_to_plan(config, data, begun.folder, name, trackers, refuses=not config.ignore_memory_plan)
    placing = dict(plan.placing) if plan else {}
    memory = PeakMemory(plan.predictions() if plan else {}, trackers.detail)
    config, backend = load_suggested(name, data.model, config, trackers.message, memory.idle)
    trackers.message(f"{data.model.family.name} on {name}, {backend.device_name()}")
    with during(LOADING), progress("preparing the model for training"):
        trained = backend.prepare_training(config.model_copy(update=agreed_placing(placing, backend.world)))
    memory.watch(backend)
    if config.enable_xformers_memory_efficient_attention:
        trackers.message(XFORMERS)
    return config, backend, memory, trained


def _latents(
    config: TrainConfig, resolved: ResolvedSettings, images: Mapping[ImageSet, Images], folder: Path, backend: Backend
) -> Latents:
    together = config.vae_batch_size if config.cache_latents else 1
    room, cache = resolved.latent_bytes or 0, resolved.latent_cache
    return Latents(config.seed, images, backend.encode_images, room, folder, cache, together)


@during(PROMPTS)
def _encode_prompts(
    data: TrainingData, resolved: ResolvedSettings, backend: Backend, warn: Callable[[str], None]
) -> PromptTable:
    """The run's prompts, all of them encoded at once, while the text encoders have the device: before class images, so
    that those who do not train are needed no more."""
    drops = resolved.weighting.caption_dropout > 0
    words, encoders = _words(data, resolved.classes, empty=drops), len(data.model.text_encoders)
    warn_of_cut_prompts(backend, encoders, words.prompts, prompt_owners(data), warn)
    looked_at = [one.sampler for one in (resolved.validation, resolved.final_validation) if one]
    samplers = [*looked_at, *(one.sampler for one in resolved.classes.values())]
    more = [text for sampler in samplers for text in (sampler.prompt, sampler.negative_prompt)]
    backend.set_prompts(list(dict.fromkeys([*words.prompts, *more])))
    return words


def _words(data: TrainingData, classes: Mapping[int, ClassPlan], *, empty: bool) -> PromptTable:
    of_image: dict[ImageSet, Sequence[Sequence[str]]] = {}
    for number, subject in enumerate(data.subjects):
        of_image[ImageSet(number, INSTANCE)] = subject.prompts
        of_image[ImageSet(number, PRESERVED)] = subject.preserved
    for number, one in classes.items():
        of_image[ImageSet(number, CLASS)] = [[one.sampler.prompt]] * one.count
    return PromptTable.collect(of_image, [text for part in data.held_out for text in part.prompts], empty=empty)


@during(CLASSES)
def _complete_classes(classes: ClassPlan, backend: Backend, trackers: Trackers) -> ImageFolder:
    def make(seeds: Any) -> Any:
        return classes.sampler.make(backend, seeds)

    batch_size = classes.sampler.batch_size
    return classes.images.complete(classes.count, make, batch_size, backend.world, trackers.message)


def _check_folders(resolved: ResolvedSettings) -> None:
    """Refuse folders that cannot be written, before an earlier run's results go."""
    for one in resolved.classes.values():
        if not one.images.zipped:
            usable_folder(one.images.folder, "class_data_dir")
    if resolved.latent_cache is not None:
        resolved.latent_cache.check()


def _go_on(run_folder: RunFolder, resumed: Resumed, resolved: ResolvedSettings, say: Callable[[str], None]) -> None:
    """From here on the folder is this run's: nothing can refuse to go on from the checkpoint any more."""
    if resumed.lies_in(run_folder.path):
        run_folder.go_on()
        set_damaged_aside(run_folder.path, resumed.update)
        kept = resolved.intervals.checkpoints_in_training
        prune(run_folder.path, resumed.update, kept, say)  # a killed run may have left one too many
    else:
        run_folder.clear(say)
    run_folder.write_config(resolved.settings)  # which keeps its reasons


@during(LOADING)
def _load_state(backend: Backend, resumed: Resumed, trackers: Trackers, *, reset_optimizer: bool) -> None:
    if reset_optimizer:
        trackers.warn(f"the weights of {resumed.folder.name}, and an optimizer that starts afresh")
        backend.load_state(resumed.folder, reset_optimizer=True)
    else:
        backend.load_state(resumed.folder)


def _identity(config: TrainConfig, data: TrainingData, plan: Plan, backend: str) -> dict[str, Any]:
    """What a checkpoint says of its run, but for the class images."""
    return {
        "dreambooth": __version__,
        "backend": backend,
        "model": data.model.fingerprint,
        "instance_data": _together([subject.images for subject in data.subjects]),
        "samples_per_update": plan.samples_per_update,
        "init_lora": _hash_of_first_factors(config),
        "settings": config.model_dump(mode="json"),
    }


def _hash_of_first_factors(config: TrainConfig) -> str | None:
    """Of the LoRA file that training begins with."""
    if not config.use_lora or config.init_lora is None:
        return None
    return file_sha256(find_lora("init_lora", config.init_lora))


def _together(folders: Sequence[ImageFolder]) -> str | None:
    """The fingerprint of several folders."""
    if len(folders) < 2:
        return folders[0].fingerprint if folders else None
    return hashlib.sha256("".join(folder.fingerprint for folder in folders).encode()).hexdigest()


def _images(
    data: TrainingData, class_folders: Mapping[int, ImageFolder], outside_weight: float | None
) -> dict[ImageSet, Images]:
    """Of every concept and kind; class images have no masks."""
    images = {ImageSet(n, INSTANCE): Images(s.images, s.crops, outside_weight) for n, s in enumerate(data.subjects)}
    crop = replace(data.crop, subject=False)
    classes = {ImageSet(n, CLASS): Images(folder, data.crops(folder, crop)) for n, folder in class_folders.items()}
    return images | classes
