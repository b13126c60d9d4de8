"""From the plan's samples to what a backend trains on: noise, timestep, words and weight of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backend import Batch
from .diffusion import NoiseSchedule, min_snr_weight
from .latents import Encoded, Latents
from .plan import INSTANCE, Plan, Sample, split_by_shape
from .prompts import Words
from .rng import Purpose, generator

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Batcher:
    """Builds the micro-batches of any update.

    An instance sample weighs 1/G and the class sample it brings λ/G, G being the instance samples of the whole
    update; backends sum.  So the loss is the mean over instances plus λ times the mean over class samples, however
    the samples are split into micro-batches and devices.
    """

    plan: Plan
    schedule: NoiseSchedule
    latents: Latents
    words: Words
    prior_loss_weight: float = 1.0
    snr_gamma: float | None = None
    noise_offset: float = 0.0
    caption_dropout: float = 0.0

    def update(self, update: int, rank: int = 0) -> tuple[list[Batch], NDArray[np.int64]]:
        """The micro-batches of an update (from 0) on one device, and `INSTANCE` or `CLASS` of each of their rows."""
        rows = split_by_shape(self.plan.micro_batches(update, rank), self.latents.shape_of)
        return [self.batch(some) for some in rows], np.array([s.row for some in rows for s in some], np.int64)

    def micro_batches(self, update: int, rank: int = 0) -> list[Batch]:
        """The micro-batches of an update (from 0) on one device."""
        return self.update(update, rank)[0]

    def batch(self, rows: Sequence[Sample]) -> Batch:
        """One micro-batch of the given rows."""
        encoded = [self.latents(s) for s in rows]
        latents = np.stack([self._latent(s, e) for s, e in zip(rows, encoded, strict=True)])
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
            seed=int(self._draw(Purpose.DROPOUT, rows[0]).integers(2**31)),
            mask=_mask([e.weights for e in encoded], latents),
        )

    def _draw(self, purpose: Purpose, sample: Sample) -> np.random.Generator:
        return generator(self.plan.seed, purpose, sample.place, sample.row)

    def _latent(self, sample: Sample, encoded: Encoded) -> Float:
        drawn = self._draw(Purpose.POSTERIOR, sample).standard_normal(encoded.mean.shape, np.float32)
        return np.asarray(encoded.mean + encoded.std * drawn)

    def _noise(self, sample: Sample, shape: tuple[int, ...]) -> Float:
        draw = self._draw(Purpose.NOISE, sample)
        noise = draw.standard_normal(shape, np.float32)
        if self.noise_offset:
            noise += np.float32(self.noise_offset) * draw.standard_normal((shape[0], 1, 1), np.float32)
        return noise

    def _timestep(self, sample: Sample) -> int:
        return int(self._draw(Purpose.TIMESTEP, sample).integers(self.schedule.num_train_timesteps))

    def _prompt(self, sample: Sample) -> int:
        draw = self._draw(Purpose.CAPTION, sample)
        drops = self.words.empty is not None and sample.row == INSTANCE
        if drops and draw.random() < self.caption_dropout:
            assert self.words.empty is not None
            return self.words.empty
        wordings = self.words.of_image[sample.concept, sample.row][sample.image]
        return wordings[int(draw.integers(len(wordings)))] if len(wordings) > 1 else wordings[0]


def _mask(weights: Sequence[Float | None], latents: Float) -> Float | None:
    """[B, 1, h, w]; rows without weights count everywhere alike."""
    if all(w is None for w in weights):
        return None
    everywhere = np.ones((1, *latents.shape[2:]), np.float32)
    return np.stack([everywhere if w is None else w for w in weights])


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
    mask: Float | None = None,
) -> Batch:
    """A batch of latents and noise, each [B, C, h, w], timesteps, prompts and weights, each [B], mask [B, 1, h, w]."""
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
        mask=mask,
    )
