"""From the plan's samples to what a backend trains on: noise, timestep, words and weight of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..backends.protocol import Batch
from ..data import CropRecord
from ..data.image_set import CLASS, INSTANCE, PRESERVED, ImageSet
from ..diffusion import randomness
from ..diffusion.coefficients import min_snr_weight
from ..diffusion.schedule import NoiseSchedule
from ..families import STABLE_DIFFUSION, FamilyInputs
from ..text.prompts import PromptTable
from .latents import Decoded, Encoded, Latents
from .sample_plan import Plan, Sample, split_by_shape

Float = NDArray[np.float32]
PLAIN = FamilyInputs(STABLE_DIFFUSION)
"""A family whose denoiser receives timesteps and words, and nothing else."""


@dataclass(frozen=True)
class Weighting:
    """What a run's settings make of noise, weights and prompts."""

    prior_loss_weight: float = 1.0
    """Of class images, beside 1 of instance images."""
    preservation_weight: float = 1.0
    """Of the network's own answers that are kept (`Sample.preserves`)."""
    snr_gamma: float | None = None
    """Min-SNR's γ; None where it does not weigh."""
    noise_offset: float = 0.0
    caption_dropout: float = 0.0
    encoder_dropout: tuple[float, ...] = ()
    """Of each text encoder by itself; none where they are asked together."""
    draws_latents: bool = True
    """Whether latents are drawn from the autoencoder's distribution; otherwise they are its mean."""


@dataclass(frozen=True)
class Batcher:
    """Builds the micro-batches of any update.

    An instance sample weighs 1/G and the class sample it brings λ/G, G being the instance samples of the whole
    update; backends sum.  So the loss is the mean over instances plus λ times the mean over class samples, however
    the samples are split into micro-batches and devices; the network's own answers have a λ of theirs.
    """

    plan: Plan
    schedule: NoiseSchedule
    latents: Latents
    prompts: PromptTable
    weighting: Weighting = Weighting()
    family: FamilyInputs = PLAIN

    def decoded(self, update: int, rank: int = 0) -> Decoded:
        """The images that an update on one device needs, but for those whose latents are kept."""
        return self.latents.decoded(row for rows in self.plan.micro_batches(update, rank) for row in rows)

    def update(
        self, update: int, rank: int = 0, images: Decoded | None = None
    ) -> tuple[list[Batch], NDArray[np.int64]]:
        """The micro-batches of an update (from 0) on one device, and of each of their rows `INSTANCE`, `CLASS` or
        `PRESERVED`; of images that `decoded` has told, where they are given."""
        rows = split_by_shape(self.plan.micro_batches(update, rank), self.latents.shape_of)
        return [self.batch(some, images or {}) for some in rows], np.array(
            [s.row for some in rows for s in some], np.int64
        )

    def micro_batches(self, update: int, rank: int = 0) -> list[Batch]:
        """The micro-batches of an update (from 0) on one device."""
        return self.update(update, rank)[0]

    def batch(self, rows: Sequence[Sample], images: Decoded) -> Batch:
        """One micro-batch of the given rows."""
        encoded = [self.latents(s, images[s]) if s in images else self.latents(s) for s in rows]
        latents = np.stack([self._latent(s, e) for s, e in zip(rows, encoded, strict=True)])
        beside = [self._reference(s, e.reference) for s, e in zip(rows, encoded, strict=True) if e.reference]
        noise = np.stack([self._noise(s, latents.shape[1:]) for s in rows])
        timesteps = np.array([self.schedule.draw(self._draw(randomness.timestep, s)) for s in rows], np.int64)
        lambdas = {
            INSTANCE: 1.0,
            CLASS: self.weighting.prior_loss_weight,
            PRESERVED: self.weighting.preservation_weight,
        }
        weight = np.array([lambdas[s.row] for s in rows])
        batch = form_batch(
            self.schedule,
            latents,
            noise,
            timesteps,
            prompt=np.array([self._prompt(s) for s in rows], np.int64),
            weight=weight / self.plan.samples_per_update,
            snr_gamma=self.weighting.snr_gamma,
            seed=int(self._draw(randomness.dropout, rows[0]).integers(2**31)),
            mask=_mask([None if s.preserves else e.weights for s, e in zip(rows, encoded, strict=True)], latents),
            family=self.family,
            records=lambda: [self.latents.record(s) for s in rows],
            references=np.stack(beside) if beside else None,
        )
        batch = replace(batch, dropped=self._dropped(rows))
        return self._with_own_targets(batch, [s for s in rows if s.preserves], latents.shape[2:4])

    def _with_own_targets(self, batch: Batch, rows: Sequence[Sample], latent: tuple[int, int]) -> Batch:
        """A batch whose last rows are to be answered as the network does by itself: their target is not known yet."""
        if not rows:
            return batch
        first = len(batch.x) - len(rows)
        target = batch.target.copy()
        target[first:] = 0
        own = replace(
            batch,
            **{name: getattr(batch, name)[first:] for name in ("x", "target", "t", "prompt", "weight")},
            mask=None,
            dropped=None,
            extra=self.family.extra(
                lambda: [self.latents.record(s) for s in rows], latent, refers=batch.x.shape[1] > batch.target.shape[1]
            ),
        )
        return replace(batch, target=target, preserved=own)

    def _dropped(self, rows: Sequence[Sample]) -> NDArray[np.bool_] | None:
        """[B, encoders] whose words each row goes without; class images and the network's own answers have them all."""
        rates = np.array(self.weighting.encoder_dropout)
        if not rates.any():
            return None
        drawn = np.stack([self._draw(randomness.dropped_encoders, s).random(len(rates)) for s in rows])
        return np.array([[s.row == INSTANCE] for s in rows]) & (drawn < rates)

    def _draw(self, key: Callable[[int, int, int], np.random.Generator], sample: Sample) -> np.random.Generator:
        return key(self.plan.seed, sample.place, sample.kind)

    def _latent(self, sample: Sample, encoded: Encoded) -> Float:
        return self._drawn(encoded.mean, encoded.std, self._draw(randomness.posterior, sample))

    def _reference(self, sample: Sample, reference: tuple[Float, Float]) -> Float:
        return self._drawn(*reference, self._draw(randomness.posterior_of_reference, sample))

    def _drawn(self, mean: Float, std: Float, draw: np.random.Generator) -> Float:
        if not self.weighting.draws_latents:
            return mean
        return np.asarray(mean + std * draw.standard_normal(mean.shape, np.float32))

    def _noise(self, sample: Sample, shape: tuple[int, ...]) -> Float:
        draw = self._draw(randomness.noise, sample)
        noise = draw.standard_normal(shape, np.float32)
        if self.weighting.noise_offset:
            noise += np.float32(self.weighting.noise_offset) * draw.standard_normal((shape[0], 1, 1), np.float32)
        return noise

    def _prompt(self, sample: Sample) -> int:
        draw = self._draw(randomness.prompt_of_sample, sample)
        drops = self.prompts.empty is not None and sample.kind == INSTANCE
        if drops and draw.random() < self.weighting.caption_dropout and not sample.preserves:
            assert self.prompts.empty is not None
            return self.prompts.empty
        wordings = self.prompts.of_image[ImageSet(sample.concept, sample.row)][sample.image]
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
    family: FamilyInputs = PLAIN,
    records: Callable[[], Sequence[CropRecord]] = list,
    references: Float | None = None,
) -> Batch:
    """A batch of latents and noise, each [B, C, h, w], timesteps, prompts and weights, each [B], mask [B, 1, h, w].

    `records` tells what each row shows of its photograph; it is asked where the family wants to know.  Tokens of
    `references`, clean latents [B, C, h, w], follow those of the noisy ones.
    """
    seen = family.family.seen
    schedule = schedule.at_size(latents.shape[2] * latents.shape[3] // family.area)
    q = schedule.coefficients(timesteps)
    a, b, c, d = (v.astype(np.float32)[:, None, None, None] for v in (q.a, q.b, q.c, q.d))
    weight = weight * (schedule.weight(timesteps) if snr_gamma is None else min_snr_weight(q, snr_gamma))
    if mask is not None and family.family.patch > 1:
        mask = np.broadcast_to(mask, latents.shape)
    noisy = a * latents + b * noise
    if family.family.upscales:
        noisy = np.concatenate([noisy, noisy], 1)
    x = seen(noisy)
    if references is not None:
        x = np.concatenate([x, seen(references)], 1)
    return Batch(
        x=x,
        target=seen(c * latents + d * noise),
        t=schedule.network_times(timesteps).astype(np.float32),
        prompt=prompt,
        weight=weight.astype(np.float32),
        seed=seed,
        mask=None if mask is None else seen(mask),
        extra=family.extra(records, latents.shape[2:4], refers=references is not None),
    )
