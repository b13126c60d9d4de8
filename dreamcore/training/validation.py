"""Looking at the model along the way: images from the same seeds each time, and the loss on held-out photographs.

Nothing here draws from the training's streams, so a run with validation and one without train alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backends.out_of_memory import IMAGES, during
from ..backends.protocol import Backend
from ..config import TrainConfig
from ..data import CropRecord
from ..diffusion.randomness import held_out_loss
from ..diffusion.schedule import NoiseSchedule
from ..errors import named
from ..families import FamilyInputs
from ..io.files import write_atomically
from ..io.images import png_bytes
from ..io.progress import each, progress
from ..models.settings import guidance, sampler
from ..text.prompts import PromptTable, subject_words, validation_words
from .batches import form_batch
from .image_sampler import ImageSampler
from .references import reference_images
from .shared_work import all_succeed, bytes_of_all, in_order, turns
from .training_data import HeldOutImages, TrainingData
from .upscaling import low_resolution

HELD_OUT_TIMESTEPS = 4
"""Noise levels at which each held-out photograph is judged: one in each quarter of the schedule."""


@dataclass(frozen=True)
class ValidationImages:
    """The images made at each validation."""

    sampler: ImageSampler
    seeds: list[int]

    @classmethod
    def from_config(cls, config: TrainConfig, data: TrainingData, prompt: str | None = None) -> ValidationImages | None:
        """As the settings ask for, of another prompt if one is given; None without a validation prompt."""
        prompt = config.validation_prompt if prompt is None else prompt
        if prompt is None:
            return None
        first = data.subjects[0]
        said = partial(subject_words, config, first.concept, first.images, first.prompts)
        prompt = validation_words(config, first.concept, prompt, said)
        made = ImageSampler(
            prompt,
            config.validation_negative_prompt if data.model.classifier_free else "",
            config.validation_num_inference_steps,
            guidance(config.validation_guidance_scale, data.model),
            sampler(config.validation_scheduler, data.model, "validation_scheduler", "dpmsolver++"),
            data.latent_shape,
            config.sample_batch_size,
        )
        family = data.model.family
        refers = family.reference_time is not None
        if not (refers or family.upscales) or config.validation_images is None:
            return cls(made, [config.seed + k for k in range(config.num_validation_images)])
        if refers:  # as many images of each
            seeds = [config.seed + k for k in range(config.num_validation_images)]
            images = reference_images(config.validation_images, data.crop.height, data.crop.width)
            return cls(replace(made, images=np.repeat(images, len(seeds), 0)), seeds * len(images))
        images = low_resolution(config.validation_images, "validation_images")
        return cls(replace(made, images=images), [config.seed + k for k in range(len(images))])

    def make(self, backend: Backend) -> NDArray[np.uint8]:
        """[N, H, W, 3], on every rank, of which each makes its share.

        Raises:
            LostRankError: another rank could not.
        """
        world, images = backend.world, self.sampler.images
        mine = turns(len(self.seeds), world)
        own = replace(self.sampler, images=None if images is None else images[mine])

        def make() -> NDArray[np.uint8]:
            with progress("making validation images", len(mine)) as step:
                return own.make(backend, [self.seeds[n] for n in mine], step)

        return np.stack(in_order(bytes_of_all(all_succeed(make, world), world), len(self.seeds)))


def image_files(folder: Path, step: int, count: int) -> list[Path]:
    """The files of a validation's images, `step-STEP-K.png`."""
    return [folder / f"step-{step:06}-{k}.png" for k in range(count)]


def asked_files(folder: Path, step: int, number: int, count: int) -> list[Path]:
    """The files of images of other words than the validation's, which were asked for: `asked-STEP-NUMBER-K.png`."""
    return [folder / f"asked-{step:06}-{number}-{k}.png" for k in range(count)]


def save_images(images: NDArray[np.uint8], files: Sequence[Path]) -> None:
    """Write each image into its file."""
    for file, image in zip(files, images, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, png_bytes(image))


@dataclass(frozen=True)
class HeldOut:
    """The loss on photographs that do not train, at noise and timesteps that never change.

    Of several ranks, each measures that of its share of the photographs, by their numbers.
    """

    numbers: list[int]
    count: int
    """Of all."""
    latents: list[NDArray[np.float32]]
    references: list[NDArray[np.float32] | None]
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
        words: PromptTable,
        schedule: NoiseSchedule,
        family: FamilyInputs,
        seed: int,
        backend: Backend,
    ) -> HeldOut:
        """Encode each photograph once; the prompts are among `words`."""
        latents, references, records, prompts = [], list[NDArray[np.float32] | None](), [], []
        every = [(part, number) for part in images for number in range(len(part.crops))]
        numbers = turns(len(every), backend.world)
        for part, number in each([every[n] for n in numbers], "encoding held-out images"):
            crop = part.crops[number]
            image = part.images.sample(number, crop, None)
            with named(str(part.images.photos[number].path)):
                latents.append(backend.encode_images(image.pixels[None])[0][0])
                beside = image.reference
                references.append(None if beside is None else backend.encode_images(beside[None])[0][0])
            records.append(part.images.record(number, crop, None))
            prompts.append(words.prompts.index(part.prompts[number]))
        return cls(numbers, len(every), latents, references, records, prompts, schedule, family, seed)

    def loss(self, backend: Backend) -> float:
        """Mean squared error over photographs and noise levels, unweighted; every rank comes here."""
        quarter = self.schedule.num_train_timesteps // HELD_OUT_TIMESTEPS
        errors = []
        known = list(zip(self.numbers, self.latents, self.references, self.records, self.prompts, strict=True))
        for number, latent, reference, record, prompt in each(known, "measuring the held-out loss"):
            draw = held_out_loss(self.seed, number)
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
                references=None if reference is None else np.broadcast_to(reference, shape),
            )
            errors.append(backend.loss(batch))
        everyone = backend.world.gather(np.array(errors, np.float64))
        return float(np.concatenate(in_order(everyone, self.count)).mean())


def _at_each_timestep(record: CropRecord) -> list[CropRecord]:
    return [record] * HELD_OUT_TIMESTEPS
