"""Images from a finished model: `dreambooth generate`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.installed import choose_backend
from ..backends.out_of_memory import PROMPTS, SAMPLING, advise, during
from ..backends.protocol import SampleRequest
from ..backends.registry import load_suggested
from ..config import GenerateConfig
from ..config.common import Scheduler
from ..config.used import Context, acting, refuse_idle
from ..diffusion.randomness import first_noise
from ..errors import ConfigError
from ..formats.embeddings import Embeddings
from ..hub.client import with_token
from ..io.files import AGAIN, explain_disk_errors, numbered, usable_folder, write_new
from ..io.images import contact_sheet, png_bytes
from ..io.names import GENERATED, LOG, LORA_FILE, SHEET
from ..io.progress import progress
from ..models.embedding_files import embeddings_in, open_embeddings
from ..models.folder import ModelFolder
from ..models.lora_files import as_safetensors, find_lora, lengths_first
from ..models.settings import model_facts, refuse_before_fetching, sampler
from ..track import Console, shows_progress
from ..training.references import reference_of
from ..training.upscaling import low_resolution
from .infotext import SAMPLERS, infotext
from .shots import Shot, batches, shots


@shows_progress
def generate(config: GenerateConfig) -> list[Path]:
    """Make images of each prompt and write them, their contact sheet and a record of what made them.

    Nothing in the folder is replaced: numbers go on after the last image there.

    An image's noise comes from its seed alone, so the same seed gives the same image whatever else is made.

    Returns:
        The images' files, prompt by prompt; the contact sheet last where one was asked for.

    Raises:
        ConfigError: before anything is loaded, naming the setting that cannot be used and what would be right.
        OutOfMemory: it names the settings that would help.
    """
    name = choose_backend(config.backend)
    for note in config.notes:
        Console().message(note)
    refuse_before_fetching(config, name)
    folder = Path(config.output_dir).expanduser()
    with (
        with_token(config.token),
        advise(config, name, SAMPLING, lambda entry: write_new(numbered(folder / LOG), entry)),
    ):
        return _generate(config, name)


def _generate(config: GenerateConfig, name: str) -> list[Path]:
    model = ModelFolder.of(config)
    context = Context(name, model_facts(model))
    refuse_idle(config, context)
    work = shots(config, model)
    scheduler = sampler(config.scheduler, model, "scheduler")
    start = _start(config, model)
    references = {size: reference_of(config.image, model, name, size) for size in {(s.height, s.width) for s in work}}
    loras = [(find_lora("lora", name), scale) for name, scale in config.loras] if config.lora is not None else []
    words = _words(config, model, loras)
    folder = Path(config.output_dir).expanduser()
    usable_folder(folder, "output_dir")
    batch_size, wants_sheet = config.batch_size, config.contact_sheet
    config, backend = load_suggested(name, model, config, Console().message)
    for file, scale in lengths_first(loras):
        with as_safetensors(file, model) as readable:
            backend.load_lora(readable, scale)
    if words is not None:
        backend.load_words(words)
    with during(PROMPTS):  # all at once, so that text encoders are gone when the denoiser comes
        backend.set_prompts(list(dict.fromkeys(text for shot in work for text in (shot.prompt, shot.negative))))

    pictures: list[NDArray[np.uint8]] = []
    files: list[Path] = []
    made_by: dict[str, Any] = {"Model": Path(config.pretrained_model_name_or_path).name}
    if loras:
        made_by["Lora"] = ", ".join(_lora_name(file) for file, _ in loras)
        made_by["Lora strength"] = ", ".join(str(scale) for _, scale in loras)
    names = _free_names(folder)
    with progress("making images", len(work)) as step:
        for some in batches(work, batch_size):
            request = replace(_request(some, model, scheduler), learned_variance=not loras)
            if start is not None:
                request = replace(request, images=np.repeat(start, len(some), 0), noise_level=config.noise_level)
            if (reference := references[some[0].height, some[0].width]) is not None:
                request = replace(request, images=np.repeat(reference, len(some), 0))
            made = backend.sample(request)
            with explain_disk_errors(f"writing images to {folder}", AGAIN):
                for shot, picture in zip(some, made, strict=True):
                    text = infotext(shot.prompt, shot.negative, _details(shot, scheduler) | made_by)
                    files.append(write_new(names, png_bytes(picture, text)))
            pictures.extend(made)
            step(len(some))
    with explain_disk_errors(f"writing {folder}", AGAIN):
        record = [{"file": f.name, "prompt": s.prompt, "seed": s.seed} for f, s in zip(files, work, strict=True)]
        if wants_sheet and len({picture.shape for picture in pictures}) == 1:
            columns = config.num_images if config.num_images < len(work) else None
            sheet = contact_sheet(pictures, columns=columns)
            files.append(write_new(numbered(folder / SHEET), png_bytes(sheet)))
        content = {"settings": acting(config, context), "pictures": record}
        write_new(numbered(folder / GENERATED), json.dumps(content, indent=1, ensure_ascii=False))
    return files


def _words(config: GenerateConfig, model: ModelFolder, loras: Sequence[tuple[Path, float]]) -> Embeddings | None:
    """The new words that prompts may hold: those that are named, or that lie beside a LoRA file."""
    if config.embeddings is not None:
        return open_embeddings(config.embeddings, model)
    beside = next((found for file, _ in loras if (found := embeddings_in(file.parent)) is not None), None)
    return None if beside is None else open_embeddings(str(beside), model)


def _start(config: GenerateConfig, model: ModelFolder) -> NDArray[np.float32] | None:
    """[1, 3, h, w] the image that a model which upscales starts from; None for others."""
    if not model.family.upscales:
        return None
    if config.image is None:
        raise ConfigError(f"image: needed: {model.family.name} makes an image of a smaller one; name stage 1's")
    return low_resolution([config.image], "image")


def _request(some: Sequence[Shot], model: ModelFolder, scheduler: Scheduler) -> SampleRequest:
    """What the backend is asked for to make images of one kind."""
    first, seeds = some[0], [shot.seed for shot in some]
    factor = model.latent_factor
    noise = first_noise(seeds, (model.latent_channels, first.height // factor, first.width // factor))
    prompts = [shot.prompt for shot in some]
    return SampleRequest(prompts, noise, seeds, first.steps, first.scale, scheduler, first.negative)


def _details(shot: Shot, scheduler: Scheduler) -> dict[str, Any]:
    """How an image was made, under the names that A1111's web UI gives."""
    how = {"Steps": shot.steps, "Sampler": SAMPLERS[scheduler], "CFG scale": shot.scale}
    return how | {"Seed": shot.seed, "Size": f"{shot.width}x{shot.height}"}


def _free_names(folder: Path) -> Iterator[Path]:
    """00000.png and so on, after the last that is there."""
    there = [int(file.stem) for file in folder.glob("*.png") if file.stem.isascii() and file.stem.isdecimal()]
    return (folder / f"{number:05}.png" for number in itertools.count(max(there, default=-1) + 1))


def _lora_name(file: Path) -> str:
    """What tells a LoRA file from others: its own name, or its run's."""
    return file.parent.resolve().name if file.name == LORA_FILE else file.stem
