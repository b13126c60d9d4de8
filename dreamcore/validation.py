"""Looking at the model along the way: pictures from the same seeds each time, and the loss on held-out photographs.

Nothing here draws from the training's streams, so a run with validation and one without train alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .backend import Backend, SampleRequest
from .batches import form_batch
from .choices import guidance, sampler
from .config import TrainConfig
from .config.common import Scheduler
from .data import CropRecord
from .diffusion import NoiseSchedule
from .errors import named
from .families import FamilyInputs
from .files import write_atomically
from .inputs import HeldOutImages, Inputs
from .outofmemory import IMAGES, during
from .pictures import first_noise, png_bytes
from .prompts import Words, subject_words
from .rng import Purpose, generator

INSTANCE_PROMPT = "{instance_prompt}"
"""In a validation prompt: the first concept's words."""
HELD_OUT_TIMESTEPS = 4
"""Noise levels at which each held-out photograph is judged: one in each quarter of the schedule."""


@dataclass(frozen=True)
class Pictures:
    """Validation pictures, or class images: everything but their seeds."""

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    scheduler: Scheduler
    shape: tuple[int, int, int]
    """[C, h, w] of a latent."""
    batch_size: int
    for_training: bool = False
    """These are class images."""

    def make(self, backend: Backend, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """[N, H, W, 3], one picture a seed, made `batch_size` at a time."""
        parts = []
        for start in range(0, len(seeds), self.batch_size):
            some = list(seeds[start : start + self.batch_size])
            request = SampleRequest(
                [self.prompt] * len(some),
                first_noise(some, self.shape),
                some,
                self.steps,
                self.guidance_scale,
                self.scheduler,
                self.negative_prompt,
                self.for_training,
            )
            parts.append(backend.sample(request))
        return np.concatenate(parts)


@dataclass(frozen=True)
class ValidationPictures:
    """The pictures made at each validation."""

    pictures: Pictures
    seeds: list[int]

    @classmethod
    def from_config(cls, config: TrainConfig, inputs: Inputs) -> ValidationPictures | None:
        """As the settings ask for; None without a validation prompt."""
        prompt = config.validation_prompt
        if prompt is None:
            return None
        if INSTANCE_PROMPT in prompt:
            first = inputs.subjects[0]
            said = subject_words(config, first.concept, first.images, first.prompts)
            prompt = prompt.replace(INSTANCE_PROMPT, said)
        pictures = Pictures(
            prompt,
            config.validation_negative_prompt if inputs.model.family.classifier_free else "",
            config.validation_num_inference_steps,
            guidance(config.validation_guidance_scale, inputs.model),
            sampler(config.validation_scheduler, inputs.model, "validation_scheduler", "dpmsolver++"),
            inputs.latent_shape,
            config.sample_batch_size,
        )
        return cls(pictures, [config.seed + k for k in range(config.num_validation_images)])

    def make(self, backend: Backend) -> NDArray[np.uint8]:
        """[N, H, W, 3]."""
        return self.pictures.make(backend, self.seeds)


def picture_names(folder: Path, step: int, count: int) -> list[Path]:
    """The files of a validation's pictures, `step-STEP-K.png`."""
    return [folder / f"step-{step:06}-{k}.png" for k in range(count)]


def save_pictures(pictures: NDArray[np.uint8], files: Sequence[Path]) -> None:
    """Write each picture into its file."""
    for file, picture in zip(files, pictures, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, png_bytes(picture))


@dataclass(frozen=True)
class HeldOut:
    """The loss on photographs that do not train, at noise and timesteps that never change."""

    latents: list[NDArray[np.float32]]
    records: list[CropRecord]
    prompts: list[int]
    schedule: NoiseSchedule
    family: FamilyInputs
    seed: int

    @classmethod
    @during(IMAGES)
    def encode(
        cls,
        images: Sequence[HeldOutImages],
        words: Words,
        schedule: NoiseSchedule,
        family: FamilyInputs,
        seed: int,
        backend: Backend,
    ) -> HeldOut:
        """Encode each photograph once; the prompts are among `words`."""
        latents, records, prompts = [], [], []
        for part in images:
            for number, (crop, prompt) in enumerate(zip(part.crops, part.prompts, strict=True)):
                pixels = part.images.pixels(number, crop, None)
                with named(str(part.images.photos[number].path)):
                    latents.append(backend.encode_images(pixels[None])[0][0])
                records.append(part.images.record(number, crop, None))
                prompts.append(words.prompts.index(prompt))
        return cls(latents, records, prompts, schedule, family, seed)

    def loss(self, backend: Backend) -> float:
        """Mean squared error over photographs and noise levels, unweighted."""
        quarter = self.schedule.num_train_timesteps // HELD_OUT_TIMESTEPS
        errors = []
        for number, (latent, record, prompt) in enumerate(zip(self.latents, self.records, self.prompts, strict=True)):
            draw = generator(self.seed, Purpose.HELD_OUT, number)
            timesteps = np.arange(HELD_OUT_TIMESTEPS) * quarter + draw.integers(quarter, size=HELD_OUT_TIMESTEPS)
            shape = (HELD_OUT_TIMESTEPS, *latent.shape)
            noise = draw.standard_normal(shape, np.float32)
            batch = form_batch(
                self.schedule,
                np.broadcast_to(latent, shape),
                noise,
                timesteps,
                prompt=np.full(HELD_OUT_TIMESTEPS, prompt),
                weight=np.ones(HELD_OUT_TIMESTEPS),
                family=self.family,
                records=partial(_at_each_timestep, record),
            )
            errors.append(backend.loss(batch))
        return float(np.concatenate(errors).astype(np.float64).mean())


def _at_each_timestep(record: CropRecord) -> list[CropRecord]:
    return [record] * HELD_OUT_TIMESTEPS
