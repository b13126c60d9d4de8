"""Images from a finished model: `dreambooth generate`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.installed import choose_backend
from ..backends.out_of_memory import SAMPLING, advise
from ..backends.protocol import Backend, SampleRequest
from ..backends.registry import load_suggested
from ..config import GenerateConfig
from ..config.common import Scheduler
from ..config.used import Context, acting, refuse_idle
from ..diffusion.randomness import first_noise
from ..errors import ConfigError
from ..hub.client import with_token
from ..io.files import AGAIN, explain_disk_errors, numbered, usable_folder, write_new
from ..io.images import contact_sheet, png_bytes
from ..io.names import GENERATED, LOG, LORA_FILE, SHEET
from ..models.folder import ModelFolder
from ..models.mindone_lora import read_mindone_lora
from ..models.settings import model_facts, refuse_before_fetching, sampler
from ..track import Console
from .infotext import SAMPLERS, infotext
from .shots import Shot, batches, shots


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
    lora, lora_scale = (_lora_file(config.lora), config.lora_scale) if config.lora is not None else (None, 1.0)
    folder = Path(config.output_dir).expanduser()
    usable_folder(folder, "output_dir")
    batch_size, wants_sheet = config.batch_size, config.contact_sheet
    config, backend = load_suggested(name, model, config, Console().message)
    if lora is not None:
        _load_lora(backend, model, lora, lora_scale)

    pictures: list[NDArray[np.uint8]] = []
    files: list[Path] = []
    made_by: dict[str, Any] = {"Model": Path(config.pretrained_model_name_or_path).name}
    if lora is not None:
        made_by |= {"Lora": _lora_name(lora), "Lora strength": lora_scale}
    names = _free_names(folder)
    for some in batches(work, batch_size):
        made = backend.sample(_request(some, model, scheduler))
        with explain_disk_errors(f"writing images to {folder}", AGAIN):
            for shot, picture in zip(some, made, strict=True):
                text = infotext(shot.prompt, shot.negative, _details(shot, scheduler) | made_by)
                files.append(write_new(names, png_bytes(picture, text)))
        pictures.extend(made)
    with explain_disk_errors(f"writing {folder}", AGAIN):
        record = [{"file": f.name, "prompt": s.prompt, "seed": s.seed} for f, s in zip(files, work, strict=True)]
        if wants_sheet and len({picture.shape for picture in pictures}) == 1:
            columns = config.num_images if config.num_images < len(work) else None
            sheet = contact_sheet(pictures, columns=columns)
            files.append(write_new(numbered(folder / SHEET), png_bytes(sheet)))
        content = {"settings": acting(config, context), "pictures": record}
        write_new(numbered(folder / GENERATED), json.dumps(content, indent=1))
    return files


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


def _lora_file(name: str) -> Path:
    path = Path(name).expanduser()
    file = path / LORA_FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"lora: {name}: no LoRA file there; expected a .safetensors file or a folder with {LORA_FILE}"
        )
    if file.suffix not in (".safetensors", ".ckpt"):
        raise ConfigError(f"lora: {name}: only .safetensors files are read, and MindONE's .ckpt")
    return file


def _load_lora(backend: Backend, model: ModelFolder, file: Path, scale: float) -> None:
    """Add a LoRA file to the loaded model; MindONE's by way of a file that backends read."""
    if file.suffix == ".safetensors":
        backend.load_lora(file, scale)
        return
    with TemporaryDirectory() as folder:
        read = Path(folder) / file.with_suffix(".safetensors").name
        read_mindone_lora(file, model, read)
        backend.load_lora(read, scale)
