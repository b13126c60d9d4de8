"""Everything that a run needs before its first update, made in the order in which mistakes are cheapest to report:
settings and photographs, the run folder, the checkpoint, and only then the framework and the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .backend import Backend, choose_backend, launch_rank, load_backend
from .batches import Batcher
from .checkpoint import prune
from .choices import model_facts, refuse_before_fetching, settle_length, warm_up_too_long
from .config import TrainConfig
from .config.used import Context, refuse_idle
from .data import ImageFolder
from .decisions import ClassPlan, Decisions, decide
from .files import usable_folder
from .forewarning import prompt_owners, warn_of_cut_prompts, warn_of_inputs
from .inputs import Inputs, check_inputs
from .latents import Images, Latents
from .memory import PeakMemory
from .outofmemory import CLASSES, LOADING, WORDS, during
from .plan import CLASS, INSTANCE, Plan, Sample
from .prompts import Words, places
from .resume import Resumed, earlier_settings, find_resumed, finished_before, finished_record, set_damaged_aside
from .runs import RunFolder
from .runs.overlaps import refuse_own_configuration
from .track import Trackers, make_trackers
from .validation import HeldOut

XFORMERS = (
    "enable_xformers_memory_efficient_attention: xformers is not used; the framework's own attention "
    "(scaled_dot_product_attention) needs as little memory"
)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its first update."""

    config: TrainConfig
    inputs: Inputs
    folder: Path
    run_folder: RunFolder | None
    """None but on the main process, which alone writes."""
    trackers: Trackers
    backend: Backend
    memory: PeakMemory
    batcher: Batcher
    decided: Decisions
    held_out: HeldOut | None
    first: int
    """Updates that a resumed run has behind it."""
    identity: dict[str, Any]
    """What a checkpoint says of the run it belongs to."""
    class_images: list[Path]


@dataclass(frozen=True)
class Begun:
    """A run whose inputs are there and whose folder is held."""

    config: TrainConfig
    context: Context
    trackers: Trackers
    inputs: Inputs
    folder: Path
    run_folder: RunFolder | None
    """None but on the main process, which alone writes."""
    resumed: Resumed | None
    finished: int | None
    """The updates of the run in the folder, where it has finished and nothing more is asked for."""


def begin(config: TrainConfig, stack: ExitStack) -> Begun:
    """Open a run's inputs and its folder, and change nothing there; what it holds open is released by `stack`."""
    name = choose_backend(config.backend)
    rank = launch_rank(name)
    trackers = make_trackers(config.report_to, main_process=rank == 0)

    refuse_before_fetching(config, name)
    inputs = check_inputs(config, trackers.warn)
    asked = places(config, [(subject.concept, subject.images) for subject in inputs.subjects])
    context = Context(name, model_facts(inputs.model), asked)
    refuse_idle(config, context)
    folder = Path(config.output_dir).expanduser()
    resumes, overwrite = config.resume_from_checkpoint is not None, config.overwrite_output_dir
    if not resumes:
        refuse_own_configuration(config.file, folder)
    run_folder = RunFolder(folder, inputs.model.components, stack) if rank == 0 else None
    resumed = find_resumed(config, folder, trackers.warn) if resumes else None
    ended = finished_record(folder) if resumes else None
    config, said = settle_length(config, inputs.model.family, earlier_settings(resumed, ended))
    if said is not None:
        trackers.message(said)
    finished = finished_before(config, folder, resumed, ended) if resumes else None
    if run_folder and finished is None:
        continues = resumed is not None and resumed.lies_in(folder)
        run_folder.check(continues=continues, may_replace=resumes or overwrite)
    return Begun(config, context, trackers, inputs, folder, run_folder, resumed, finished)


def prepare(config: TrainConfig, stack: ExitStack) -> Prepared:
    """Prepare a run; what it holds open is released by `stack`."""
    return complete(begin(config, stack))


def complete(begun: Begun) -> Prepared:
    """Prepare what has begun for its first update."""
    config, context, trackers, inputs = begun.config, begun.context, begun.trackers, begun.inputs
    folder, run_folder, resumed = begun.folder, begun.run_folder, begun.resumed
    name = context.backend
    assert name is not None
    rank = launch_rank(name)

    if rank == 0:
        warn_of_inputs(config, inputs, trackers.warn, trackers.message)
    backend = load_backend(name, inputs.model, config)
    trackers.message(f"{inputs.model.family.name} on {name}, {backend.device_name()}")
    with during(LOADING):
        trained = backend.prepare_training(config)
    if config.enable_xformers_memory_efficient_attention:
        trackers.message(XFORMERS)
    decided = decide(config, inputs, folder, context, backend, trained)
    if (warning := warm_up_too_long(decided.rates)) is not None:
        trackers.warn(warning)

    identity = _identity(config, inputs, decided.plan, name)
    if run_folder:
        _check_folders(decided)
    if resumed:
        resumed.check_identity(identity)  # before class images are made; they are compared below
    elif run_folder:
        run_folder.clear(trackers.message)
        run_folder.write_config(decided.settings)
    memory = PeakMemory(backend, trackers.message)
    class_folders = {number: _complete_classes(one, backend, trackers) for number, one in decided.classes.items()}
    if class_folders:
        memory.end("making class images")
    identity["class_data"] = _together(list(class_folders.values()))
    if resumed:
        resumed.check_identity(identity)
        _load_state(backend, resumed, trackers, reset_optimizer=decided.reset_optimizer)
        if run_folder:
            _go_on(run_folder, resumed, decided, trackers.message)
    first = resumed.update if resumed else 0

    words = _encode_words(inputs, decided, backend, trackers.warn)
    memory.end("encoding words")
    held_out = None
    if inputs.held_out and run_folder:
        held_out = HeldOut.encode(inputs.held_out, words, decided.schedule, decided.family, config.seed, backend)
    images = _images(inputs, class_folders, decided.outside)
    latents = Latents(config.seed, images, backend.encode_images, decided.latent_bytes or 0, folder, decided.kept)
    batcher = Batcher(decided.plan, decided.schedule, latents, words, *decided.weighting, decided.family)
    if decided.latent_bytes is not None:
        _encode(latents, decided.plan.images_used(first, decided.rates.total, rank), trackers)
    memory.end("encoding images")
    backend.park()
    class_images = [photo.path for part in class_folders.values() for photo in part.photos]
    return Prepared(
        config,
        inputs,
        folder,
        run_folder,
        trackers,
        backend,
        memory,
        batcher,
        decided,
        held_out,
        first,
        identity,
        class_images,
    )


@during(WORDS)
def _encode_words(inputs: Inputs, decided: Decisions, backend: Backend, warn: Callable[[str], None]) -> Words:
    """The run's prompts, all of them encoded at once, while the text encoders have the device."""
    *_, dropout = decided.weighting
    words, encoders = _words(inputs, decided.classes, empty=dropout > 0), len(inputs.model.text_encoders)
    warn_of_cut_prompts(backend, encoders, words.prompts, prompt_owners(inputs), warn)
    looked_at = decided.pictures.pictures if decided.pictures else None
    more = [looked_at.prompt, looked_at.negative_prompt] if looked_at else []
    backend.set_prompts(list(dict.fromkeys([*words.prompts, *more])))
    return words


def _words(inputs: Inputs, classes: Mapping[int, ClassPlan], *, empty: bool) -> Words:
    of_image: dict[tuple[int, int], Sequence[Sequence[str]]] = {}
    for number, subject in enumerate(inputs.subjects):
        of_image[number, INSTANCE] = subject.prompts
    for number, one in classes.items():
        of_image[number, CLASS] = [[one.pictures.prompt]] * one.count
    return Words.collect(of_image, [text for part in inputs.held_out for text in part.prompts], empty=empty)


@during(CLASSES)
def _complete_classes(classes: ClassPlan, backend: Backend, trackers: Trackers) -> ImageFolder:
    def make(seeds: Any) -> Any:
        return classes.pictures.make(backend, seeds)

    batch_size = classes.pictures.batch_size
    return classes.images.complete(classes.count, make, batch_size, backend.world, trackers.message)


def _check_folders(decided: Decisions) -> None:
    """Refuse folders that cannot be written, before an earlier run's results go."""
    for one in decided.classes.values():
        usable_folder(one.images.folder, "class_data_dir")
    if decided.kept is not None:
        decided.kept.check()


def _go_on(run_folder: RunFolder, resumed: Resumed, decided: Decisions, say: Callable[[str], None]) -> None:
    """From here on the folder is this run's: nothing can refuse to go on from the checkpoint any more."""
    if resumed.lies_in(run_folder.path):
        run_folder.go_on()
        set_damaged_aside(run_folder.path, resumed.update)
        kept = decided.rhythm.checkpoints_in_training
        prune(run_folder.path, resumed.update, kept, say)  # a killed run may have left one too many
    else:
        run_folder.clear(say)
    run_folder.write_config(decided.settings)


@during(LOADING)
def _load_state(backend: Backend, resumed: Resumed, trackers: Trackers, *, reset_optimizer: bool) -> None:
    if reset_optimizer:
        trackers.warn(f"the weights of {resumed.folder.name}, and an optimizer that starts afresh")
        backend.load_state(resumed.folder, reset_optimizer=True)
    else:
        backend.load_state(resumed.folder)


def _identity(config: TrainConfig, inputs: Inputs, plan: Plan, backend: str) -> dict[str, Any]:
    """What a checkpoint says of its run, but for the class images."""
    from . import __version__

    return {
        "dreambooth": __version__,
        "backend": backend,
        "model": inputs.model.fingerprint,
        "instance_data": _together([subject.images for subject in inputs.subjects]),
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
