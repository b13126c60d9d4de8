"""Images from a finished model: `dreambooth generate`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.installed import choose_backend
from ..backends.out_of_memory import SAMPLING, advise
from ..backends.protocol import SampleRequest
from ..backends.registry import load_backend
from ..config import GenerateConfig
from ..config.used import Context, acting, refuse_idle
from ..diffusion.randomness import first_noise
from ..errors import ConfigError
from ..io.files import AGAIN, explain_disk_errors, numbered, usable_folder, write_new
from ..io.images import contact_sheet, png_bytes
from ..io.names import GENERATED, LOG, LORA_FILE, SHEET
from ..models.folder import ModelFolder
from ..models.settings import guidance, model_facts, refuse_before_fetching, sampler
from ..track import Console
from .infotext import SAMPLERS, infotext


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
    if config.note is not None:
        Console().message(config.note)
    refuse_before_fetching(config, name)
    folder = Path(config.output_dir).expanduser()
    with advise(config, name, SAMPLING, lambda entry: write_new(numbered(folder / LOG), entry)):
        return _generate(config, name)


def _generate(config: GenerateConfig, name: str) -> list[Path]:
    model = ModelFolder.of(config)
    context = Context(name, model_facts(model))
    refuse_idle(config, context)
    prompts = _prompts(config)
    height, width = _size(config, model)
    negative = config.negative_prompt if model.family.classifier_free else ""
    steps, scale = config.num_inference_steps, guidance(config.guidance_scale, model)
    scheduler = sampler(config.scheduler, model, "scheduler")
    lora, lora_scale = (_lora_file(config.lora), config.lora_scale) if config.lora is not None else (None, 1.0)
    folder = Path(config.output_dir).expanduser()
    seeds = [config.seed + k for k in range(config.num_images)]
    work = [(prompt, seed) for prompt in prompts for seed in seeds]
    shape = (model.latent_channels, height // model.latent_factor, width // model.latent_factor)
    usable_folder(folder, "output_dir")
    batch_size, wants_sheet = config.batch_size, config.contact_sheet
    backend = load_backend(name, model, config)
    if lora is not None:
        backend.load_lora(lora, lora_scale)

    pictures: list[NDArray[np.uint8]] = []
    files: list[Path] = []
    details = {"Steps": steps, "Sampler": SAMPLERS[scheduler], "CFG scale": scale}
    made_by: dict[str, Any] = {"Size": f"{width}x{height}", "Model": Path(config.pretrained_model_name_or_path).name}
    if lora is not None:
        made_by |= {"Lora": _lora_name(lora), "Lora strength": lora_scale}
    names = _free_names(folder)
    for start in range(0, len(work), batch_size):
        some = work[start : start + batch_size]
        batch_seeds = [seed for _, seed in some]
        noise = first_noise(batch_seeds, shape)
        request = SampleRequest([p for p, _ in some], noise, batch_seeds, steps, scale, scheduler, negative)
        made = backend.sample(request)
        with explain_disk_errors(f"writing images to {folder}", AGAIN):
            for (prompt, seed), picture in zip(some, made, strict=True):
                text = infotext(prompt, negative, {**details, "Seed": seed, **made_by})
                files.append(write_new(names, png_bytes(picture, text)))
        pictures.extend(made)
    with explain_disk_errors(f"writing {folder}", AGAIN):
        record = [{"file": f.name, "prompt": p, "seed": s} for f, (p, s) in zip(files, work, strict=True)]
        if wants_sheet:
            sheet = contact_sheet(pictures, columns=len(seeds) if len(prompts) > 1 else None)
            files.append(write_new(numbered(folder / SHEET), png_bytes(sheet)))
        content = {"settings": acting(config, context), "pictures": record}
        write_new(numbered(folder / GENERATED), json.dumps(content, indent=1))
    return files


def _free_names(folder: Path) -> Iterator[Path]:
    """00000.png and so on, after the last that is there."""
    there = [int(file.stem) for file in folder.glob("*.png") if file.stem.isascii() and file.stem.isdecimal()]
    return (folder / f"{number:05}.png" for number in itertools.count(max(there, default=-1) + 1))


def _lora_name(file: Path) -> str:
    """What tells a LoRA file from others: its own name, or its run's."""
    return file.parent.resolve().name if file.name == LORA_FILE else file.stem


def _prompts(config: GenerateConfig) -> list[str]:
    if config.prompt is not None:
        return [config.prompt]
    assert config.prompt_file is not None, "GenerateConfig.check asks for one of them"
    try:
        text = Path(config.prompt_file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt_file: {config.prompt_file}: {error}") from None
    prompts = [line.strip() for line in text.split("\n") if line.strip()]
    if not prompts:
        raise ConfigError(f"prompt_file: {config.prompt_file}: holds no prompt; write one a line")
    return prompts


def _size(config: GenerateConfig, model: ModelFolder) -> tuple[int, int]:
    height, width = config.height or model.native_resolution, config.width or model.native_resolution
    for name, value in (("height", height), ("width", width)):
        if value % model.size_step:
            raise ConfigError(f"{name}: {value} is not a multiple of {model.size_step}, as this model needs")
    return height, width


def _lora_file(name: str) -> Path:
    path = Path(name).expanduser()
    file = path / LORA_FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"lora: {name}: no LoRA file there; expected a .safetensors file or a folder with {LORA_FILE}"
        )
    if file.suffix != ".safetensors":
        raise ConfigError(f"lora: {name}: only .safetensors files are read")
    return file
