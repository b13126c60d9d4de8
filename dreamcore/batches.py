"""From the plan's samples to what a backend trains on: noise, timestep, words and weight of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backend import Batch
from .diffusion import NoiseSchedule, min_snr_weight
from .plan import CLASS, INSTANCE, Plan, Sample
from .rng import Purpose, generator

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Words:
    """The run's prompts, and which of them belongs to which image."""

    prompts: list[str]
    of_image: dict[int, NDArray[np.int64]]
    """By row kind: index into `prompts` for each image."""
    empty: int | None = None
    """Index of the empty prompt, where captions are dropped out."""

    @classmethod
    def collect(cls, instance: Sequence[str], classes: Sequence[str], *, empty: bool) -> Words:
        """Number the distinct prompts of the images."""
        numbers = {text: i for i, text in enumerate(dict.fromkeys([*instance, *classes, *([""] if empty else [])]))}
        of_image = {
            INSTANCE: np.array([numbers[t] for t in instance], np.int64),
            CLASS: np.array([numbers[t] for t in classes], np.int64),
        }
        return cls(list(numbers), of_image, numbers[""] if empty else None)


@dataclass(frozen=True)
class Batcher:
    """Builds the micro-batches of any update.

    An instance sample weighs 1/G and the class sample it brings λ/G, G being the instance samples of the whole
    update; backends sum.  So the loss is the mean over instances plus λ times the mean over class samples, however
    the samples are split into micro-batches and devices.
    """

    plan: Plan
    schedule: NoiseSchedule
    latents: Callable[[Sample], tuple[Float, Float]]
    words: Words
    prior_loss_weight: float = 1.0
    snr_gamma: float | None = None
    noise_offset: float = 0.0
    caption_dropout: float = 0.0

    def micro_batches(self, update: int, rank: int = 0) -> list[Batch]:
        """The micro-batches of an update (from 0) on one device."""
        return [self.batch(rows) for rows in self.plan.micro_batches(update, rank)]

    def batch(self, rows: Sequence[Sample]) -> Batch:
        """One micro-batch of the given rows."""
        latents = np.stack([self._latent(s) for s in rows])
        noise = np.stack([self._noise(s, latents.shape[1:]) for s in rows])
        timesteps = np.array([self._timestep(s) for s in rows], np.int64)
        weight = np.array([1.0 if s.row == INSTANCE else self.prior_loss_weight for s in rows])
        return form_batch(
            self.schedule,
            latents,
            noise,
            timesteps,
            prompt=np.array([self._prompt(s) for s in rows], np.int64),
            weight=weight / self.plan.samples_per_update,
            snr_gamma=self.snr_gamma,
            seed=int(generator(self.plan.seed, Purpose.DROPOUT, rows[0].place).integers(2**31)),
        )

    def row_kinds(self, update: int, rank: int = 0) -> NDArray[np.int64]:
        """`INSTANCE` or `CLASS` of each row of an update on one device, in the order of its micro-batches."""
        return np.array([s.row for rows in self.plan.micro_batches(update, rank) for s in rows], np.int64)

    def _draw(self, purpose: Purpose, sample: Sample) -> np.random.Generator:
        return generator(self.plan.seed, purpose, sample.place, sample.row)

    def _latent(self, sample: Sample) -> Float:
        mean, std = self.latents(sample)
        drawn = self._draw(Purpose.POSTERIOR, sample).standard_normal(mean.shape, np.float32)
        return np.asarray(mean + std * drawn)

    def _noise(self, sample: Sample, shape: tuple[int, ...]) -> Float:
        draw = self._draw(Purpose.NOISE, sample)
        noise = draw.standard_normal(shape, np.float32)
        if self.noise_offset:
            noise += np.float32(self.noise_offset) * draw.standard_normal((shape[0], 1, 1), np.float32)
        return noise

    def _timestep(self, sample: Sample) -> int:
        return int(self._draw(Purpose.TIMESTEP, sample).integers(self.schedule.num_train_timesteps))

    def _prompt(self, sample: Sample) -> int:
        drops = self.words.empty is not None and sample.row == INSTANCE
        if drops and self._draw(Purpose.CAPTION, sample).random() < self.caption_dropout:
            assert self.words.empty is not None
            return self.words.empty
        return int(self.words.of_image[sample.row][sample.image])


def form_batch(
    schedule: NoiseSchedule,
    latents: Float,
    noise: Float,
    timesteps: NDArray[np.int64],
    *,
    prompt: NDArray[np.int64],
    weight: NDArray[np.float64],
    snr_gamma: float | None = None,
    seed: int = 0,
) -> Batch:
    """A batch from latents and noise, each [B, C, h, w], timesteps, prompts and weights, each [B]."""
    q = schedule.coefficients(timesteps)
    a, b, c, d = (v.astype(np.float32)[:, None, None, None] for v in (q.a, q.b, q.c, q.d))
    weight = weight * (q.output_scale**2 if snr_gamma is None else min_snr_weight(q, snr_gamma))
    return Batch(
        x=a * latents + b * noise,
        target=c * latents + d * noise,
        t=timesteps.astype(np.float32),
        prompt=prompt,
        weight=weight.astype(np.float32),
        seed=seed,
    )
