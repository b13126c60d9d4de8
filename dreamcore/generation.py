"""Pictures from a finished model: `dreambooth generate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .backend import SampleRequest, choose_backend, load_backend
from .checkpoint import LORA_FILE
from .choices import guidance, sampler
from .config import GenerateConfig
from .errors import ConfigError
from .files import AGAIN, explain_disk_errors, usable_folder, write_atomically
from .modelfolder import ModelFolder
from .outofmemory import PICTURES, advise
from .pictures import contact_sheet, first_noise, png_bytes
from .track.files import LOG

SHEET, RECORD = "sheet.png", "pictures.json"


def generate(config: GenerateConfig) -> list[Path]:
    """Make pictures of each prompt and write them, their contact sheet and a record of what made them.

    A picture's noise comes from its seed alone, so the same seed gives the same picture whatever else is made.

    Returns:
        The pictures' files, prompt by prompt; the contact sheet last where one was asked for.

    Raises:
        ConfigError: before anything is loaded, naming the setting that cannot be used and what would be right.
        OutOfMemory: it names the settings that would help.
    """
    name = choose_backend(config.backend)
    with advise(config, name, PICTURES, Path(config.output_dir).expanduser() / LOG):
        return _generate(config, name)


def _generate(config: GenerateConfig, name: str) -> list[Path]:
    model = ModelFolder.of(config)
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
    config.refuse_unread(f"backend {name}")
    if lora is not None:
        backend.load_lora(lora, lora_scale)

    pictures: list[NDArray[np.uint8]] = []
    files: list[Path] = []
    for start in range(0, len(work), batch_size):
        some = work[start : start + batch_size]
        batch_seeds = [seed for _, seed in some]
        noise = first_noise(batch_seeds, shape)
        request = SampleRequest([p for p, _ in some], noise, batch_seeds, steps, scale, scheduler, negative)
        made = backend.sample(request)
        with explain_disk_errors(f"writing pictures to {folder}", AGAIN):
            for offset, picture in enumerate(made):
                file = folder / f"{start + offset:05}.png"
                write_atomically(file, png_bytes(picture))
                files.append(file)
        pictures.extend(made)
    with explain_disk_errors(f"writing {folder}", AGAIN):
        record = [{"file": f.name, "prompt": p, "seed": s} for f, (p, s) in zip(files, work, strict=True)]
        write_atomically(folder / RECORD, json.dumps({"settings": config.resolved(), "pictures": record}, indent=1))
        if wants_sheet:
            sheet = contact_sheet(pictures, columns=len(seeds) if len(prompts) > 1 else None)
            write_atomically(folder / SHEET, png_bytes(sheet))
            files.append(folder / SHEET)
    return files


def _prompts(config: GenerateConfig) -> list[str]:
    if config.prompt is not None:
        return [config.prompt]
    assert config.prompt_file is not None, "GenerateConfig.check asks for one of them"
    try:
        text = Path(config.prompt_file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt_file: {config.prompt_file}: {error}") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
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
