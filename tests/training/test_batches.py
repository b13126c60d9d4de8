"""From samples to batches: what each row holds and weighs, however the update is shared out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamcore.backends.protocol import Batch
from dreamcore.data.image_set import CLASS, INSTANCE, PRESERVED
from dreamcore.diffusion.coefficients import edm_coefficients, min_snr_weight
from dreamcore.diffusion.schedule import NoiseSchedule
from dreamcore.text.prompts import PromptTable
from dreamcore.training.batches import Batcher, Weighting, form_batch
from dreamcore.training.latents import Encoded
from dreamcore.training.sample_plan import Plan, Sample, Share

SHAPE = (4, 6, 5)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = NoiseSchedule.from_config(SD)
PROMPTS = {(0, INSTANCE): [["a sks dog"]] * 3, (0, CLASS): [["a dog"]] * 4, (0, PRESERVED): [["dogs"]] * 3}
WORDS = PromptTable.collect(PROMPTS, [], empty=True)


class Drawn:
    """A mean that tells the image, and a narrow posterior."""

    def __call__(self, sample: Sample) -> Encoded:
        mean = np.full(SHAPE, 10 * sample.kind + sample.image, np.float32)
        return Encoded(mean, np.full(SHAPE, 1e-3, np.float32), None)

    def shape_of(self, sample: Sample) -> tuple[int, int]:
        return SHAPE[1:]


def batcher(**settings: Any) -> Batcher:
    plan = Plan.single(5, instances=3, classes=settings.pop("classes", 4), **settings.pop("plan", {}))
    latents: Any = Drawn()
    schedule = settings.pop("schedule", SCHEDULE)
    return Batcher(plan, schedule, latents, WORDS, Weighting(**settings))


def update(b: Batcher, number: int = 0) -> list[Batch]:
    """An update's micro-batches on all devices."""
    return [batch for rank in range(b.plan.world_size) for batch in b.micro_batches(number, rank)]


def joined(b: Batcher, of: Callable[[Batch], np.ndarray], updates: int = 1) -> np.ndarray:
    return np.concatenate([of(batch) for u in range(updates) for batch in update(b, u)])


def test_a_row_by_hand() -> None:
    """ᾱ = .64 and .36: x = .8z + .6ε and .6z + .8ε; v = .8ε − .6z and .6ε − .8z."""
    z, noise = np.full((2, 1, 2, 2), 10, np.float32), np.full((2, 1, 2, 2), 5, np.float32)
    schedule = NoiseSchedule("v_prediction", np.array([0.64, 0.36]))
    batch = form_batch(
        schedule, z, noise, np.array([0, 1]), prompt=np.array([3, 4]), weight=np.array([1.0, 0.5]), snr_gamma=1.0
    )
    np.testing.assert_allclose(batch.x[:, 0, 0, 0], [11, 10], rtol=1e-6)
    np.testing.assert_allclose(batch.target[:, 0, 0, 0], [-2, -5], rtol=1e-6)
    np.testing.assert_allclose(batch.weight, [0.36, 0.5 * 0.36], rtol=1e-6)  # min(SNR, 1)/(SNR + 1) = .36, .5625/1.5625
    assert batch.t.tolist() == [0, 1]
    assert batch.prompt.tolist() == [3, 4]
    assert {a.dtype for a in (batch.x, batch.target, batch.t, batch.weight)} == {np.dtype(np.float32)}


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0, 4]),
    st.floats(0.125, 3),
    st.integers(0, 9),
)
def test_weights_make_a_mean_over_instances_and_one_over_class_images(
    batch_size: int, accumulation: int, world_size: int, classes: int, prior: float, number: int
) -> None:
    shares = {"batch_size": batch_size, "accumulation": accumulation, "world_size": world_size}
    b = batcher(plan=shares, classes=classes, prior_loss_weight=prior)
    for rank in range(world_size):
        batches, kinds = b.update(number, rank)
        weight = np.concatenate([m.weight for m in batches])
        np.testing.assert_allclose(weight[kinds == INSTANCE], 1 / b.plan.samples_per_update, rtol=1e-6)
        np.testing.assert_allclose(weight[kinds == CLASS], prior / b.plan.samples_per_update, rtol=1e-6)
        assert len(batches) == accumulation
        assert {len(m.x) for m in batches} == {batch_size * (2 if classes else 1)}


@pytest.mark.parametrize("shares", [{"batch_size": 4}, {"accumulation": 4}, {"world_size": 2, "batch_size": 2}])
def test_rows_do_not_depend_on_how_they_are_shared_out(shares: dict[str, int]) -> None:
    """Every number of every row, to the bit."""

    def rows(b: Batcher) -> set[bytes]:
        return {
            b"".join(np.ascontiguousarray(v[i]).tobytes() for v in (m.x, m.target, m.t, m.prompt, m.weight))
            for m in update(b, 3)
            for i in range(len(m.x))
        }

    settings: dict[str, Any] = {"prior_loss_weight": 0.7, "snr_gamma": 5.0, "noise_offset": 0.1, "caption_dropout": 0.5}
    mine = rows(batcher(plan=shares, **settings))
    assert mine == rows(batcher(plan={"world_size": 4}, **settings))
    assert len(mine) == 8


def test_each_row_has_its_own_image_and_words() -> None:
    """An error of the clean latent, told back from x and the target, says which image a row came from."""
    b = batcher(plan={"batch_size": 3})
    for number in range(4):
        for rows, batch in zip(b.plan.micro_batches(number), b.micro_batches(number), strict=True):
            a = np.sqrt(SCHEDULE.levels[batch.t.astype(int)])[:, None, None, None]
            z = (batch.x - np.sqrt(1 - a**2) * batch.target) / a  # the target is the noise
            np.testing.assert_allclose(z.mean((1, 2, 3)), [10 * s.kind + s.image for s in rows], atol=0.02)
            assert [b.prompts.prompts[p] for p in batch.prompt] == ["a sks dog"] * 3 + ["a dog"] * 3


def test_no_two_rows_share_noise_timesteps_or_posterior() -> None:
    b = batcher(plan={"batch_size": 2, "accumulation": 2, "world_size": 2})
    noise = joined(b, lambda m: m.target, updates=5)
    assert len(np.unique(noise.reshape(len(noise), -1), axis=0)) == len(noise) == 80
    assert abs(noise.mean()) < 5 / noise.size**0.5
    assert abs(noise.std() - 1) < 5 / noise.size**0.5
    timesteps = joined(b, lambda m: m.t, updates=5)
    assert len(np.unique(timesteps)) > 65  # of 80 among 1,000, three or so coincide


def test_latents_are_drawn_or_the_mean() -> None:
    """Without noise, the network's input is the latent."""
    clear = NoiseSchedule("epsilon", np.ones(4))
    drawn, mean = (joined(batcher(schedule=clear, draws_latents=draws), lambda m: m.x) for draws in (True, False))
    assert (mean == mean.round()).all()
    assert 0 < np.abs(drawn - mean).max() < 0.01


def test_timesteps_cover_the_schedule_evenly() -> None:
    b = batcher(schedule=NoiseSchedule("epsilon", np.linspace(0.9, 0.1, 8)), plan={"batch_size": 10})
    counts = np.bincount(joined(b, lambda m: m.t, updates=40).astype(int), minlength=8)
    assert len(counts) == 8
    assert np.abs(counts - 100).max() < 50  # 800 draws, σ = 9.4


def test_offset_noise_is_constant_over_a_channel() -> None:
    plain, offset = (joined(batcher(noise_offset=o), lambda m: m.target, updates=60) for o in (0.0, 0.5))
    shift = offset - plain
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :, :1, :1], shift.shape), atol=1e-6)
    values = shift[:, :, 0, 0].ravel()
    assert len(np.unique(values)) == len(values) == 480
    assert abs(values.std() - 0.5) < 5 * 0.5 / (2 * 480) ** 0.5
    assert abs(values.mean()) < 5 * 0.5 / 480**0.5


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_caption_dropout_drops_that_share_of_instance_words_and_touches_nothing_else(share: float) -> None:
    plain, dropped = (batcher(caption_dropout=s, plan={"batch_size": 4}) for s in (0.0, share))
    empty = joined(dropped, lambda m: (m.prompt == WORDS.empty).astype(int), updates=100)
    kinds = np.concatenate([dropped.update(u)[1] for u in range(100)])
    assert not empty[kinds == CLASS].any()
    assert abs(empty[kinds == INSTANCE].mean() - share) <= 5 * (share * (1 - share) / 400) ** 0.5
    np.testing.assert_array_equal(joined(plain, lambda m: m.x), joined(dropped, lambda m: m.x))


def test_words_are_collected_once_each() -> None:
    images = {(0, INSTANCE): [["b"], ["a", "d"], ["b"]], (0, CLASS): [["a"], ["c"]]}
    words = PromptTable.collect(images, ["a", "e"], empty=True)
    assert words.prompts == ["b", "a", "d", "c", "e", ""]
    assert words.of_image == {(0, INSTANCE): [[0], [1, 2], [0]], (0, CLASS): [[1], [3]]}
    assert words.empty == 5
    assert PromptTable.collect({(0, INSTANCE): [[""], ["a"]]}, [], empty=True).empty == 0
    assert PromptTable.collect({(0, INSTANCE): [["a"]]}, [], empty=False).empty is None


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_edm_weighs_the_denoisers_error(gamma: float | None) -> None:
    """By one, which is c_out² for the network's error; or by min(SNR, γ), with c_out² in it once."""
    z = np.zeros((2, *SHAPE), np.float32)
    schedule = NoiseSchedule("edm", np.array([0.25, 2.0]))
    batch = form_batch(schedule, z, z, np.array([0, 1]), prompt=np.zeros(2, int), weight=np.ones(2), snr_gamma=gamma)
    q = edm_coefficients(np.array([0.25, 2.0]))
    expected = q.output_scale**2 if gamma is None else min_snr_weight(q, gamma)
    np.testing.assert_allclose(batch.weight, expected, rtol=1e-6)


@pytest.mark.parametrize("classes", [0, 4])
def test_rows_for_the_networks_own_answers(classes: int) -> None:
    """They are the instance rows once more, to the bit, under words for the class; their target is not known yet, and
    no caption is dropped, nor a mask heeded."""

    class Masked(Drawn):
        def __call__(self, sample: Sample) -> Encoded:
            return super().__call__(sample)._replace(weights=np.full((1, *SHAPE[1:]), 2, np.float32))

    plan = Plan(5, (Share(3, classes, preserves=True),), batch_size=2, accumulation=2)
    weighting = Weighting(0.5, preservation_weight=3.0, snr_gamma=5.0, noise_offset=0.1, caption_dropout=1.0)
    latents: Any = Masked()
    b = Batcher(plan, SCHEDULE, latents, WORDS, weighting)
    batches, kinds = b.update(4)
    each = 3 if classes else 2
    assert kinds.tolist() == ([INSTANCE] * 2 + [CLASS] * (2 if classes else 0) + [PRESERVED] * 2) * 2
    for batch in batches:
        own = batch.preserved
        assert own is not None and len(batch.x) == 2 * each and own.preserved is None
        for name in ("x", "t", "prompt", "weight"):
            np.testing.assert_array_equal(getattr(own, name), getattr(batch, name)[-2:], err_msg=name)
        np.testing.assert_array_equal(own.x, batch.x[:2])
        np.testing.assert_array_equal(own.t, batch.t[:2])
        np.testing.assert_allclose(own.weight, 3 * batch.weight[:2], rtol=1e-6)
        assert not batch.target[-2:].any() and batch.target[:-2].any((1, 2, 3)).all()
        assert [WORDS.prompts[int(p)] for p in batch.prompt] == ["", ""] + ["a dog"] * (2 if classes else 0) + [
            "dogs"
        ] * 2
        assert batch.mask is not None and batch.mask[:, 0, 0, 0].tolist() == [2] * (2 * each - 2) + [1, 1]
    plain = Batcher(Plan(5, (Share(3, classes),), batch_size=2, accumulation=2), SCHEDULE, latents, WORDS, weighting)
    for batch, other in zip(batches, plain.micro_batches(4), strict=True):
        np.testing.assert_array_equal(batch.x[:-2], other.x, err_msg="what else is trained does not change")
