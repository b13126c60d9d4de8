"""Flow matching and EDM: noise levels, draws, weights and shifts beside diffusers and by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dreamcore.diffusion.coefficients import min_snr_weight
from dreamcore.diffusion.schedule import FlowSettings, NoiseSchedule, ResolutionShift, flow_sigmas
from dreamcore.errors import ConfigError
from dreamcore.families import FamilyInputs
from dreamcore.families.flux import FLUX
from dreamcore.families.packing import pack, unpack
from dreamcore.training.batches import form_batch

from ..support import needs

FLOW: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
EDM: dict[str, Any] = {"_class_name": "EDMEulerScheduler", "num_train_timesteps": 40, "sigma_data": 0.5}
EVERY = np.arange(1000)


@needs.torch
@pytest.mark.parametrize("more", [{}, {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}])
def test_flow_levels_are_diffusers(more: dict[str, Any]) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    ours, theirs = (
        NoiseSchedule.from_config(FLOW | more),
        FlowMatchEulerDiscreteScheduler(**{k: v for k, v in (FLOW | more).items() if not k.startswith("_")}),
    )
    np.testing.assert_allclose(ours.levels, theirs.sigmas, rtol=1e-6)
    np.testing.assert_allclose(ours.network_times(EVERY), theirs.timesteps, rtol=1e-6)


@needs.torch
@pytest.mark.parametrize(
    "more", [{}, {"sigma_schedule": "exponential"}, {"prediction_type": "v_prediction", "sigma_data": 1.0}]
)
def test_edm_is_diffusers(more: dict[str, Any]) -> None:
    """Levels, inputs, times, and the error in the clean latent that the target and the weight stand for."""
    import torch
    from diffusers import EDMEulerScheduler

    config = EDM | more
    ours = NoiseSchedule.from_config(config)
    theirs = EDMEulerScheduler(**{k: v for k, v in config.items() if not k.startswith("_")})
    np.testing.assert_allclose(ours.levels, theirs.sigmas[:40], rtol=1e-6)
    at = np.array([0, 7, 39])
    np.testing.assert_allclose(ours.network_times(at), theirs.timesteps[at], rtol=1e-6)
    z, noise, answer = (np.array([[0.3], [-1.2], [0.7]]) * k for k in (1.0, 2.0, -0.5))
    q = ours.coefficients(at)
    x = q.a[:, None] * z + q.b[:, None] * noise
    target = q.c[:, None] * z + q.d[:, None] * noise
    sigma = theirs.sigmas[at][:, None]
    noisy = torch.from_numpy(z) + sigma * torch.from_numpy(noise)
    np.testing.assert_allclose(x, theirs.precondition_inputs(noisy, sigma), rtol=1e-5)
    denoised = theirs.precondition_outputs(noisy, torch.from_numpy(answer), sigma).numpy()
    errors = (ours.weight(at)[:, None] * (answer - target) ** 2) ** 0.5
    np.testing.assert_allclose(errors, np.abs(denoised - z), rtol=1e-4)


def test_a_network_that_is_told_one_less_sigma_and_answers_the_way_back_by_hand() -> None:
    """As diffusers' Lumina 2 and Z-Image are asked: t = 1 − σ, and y = z − ε; min-SNR weighs it as any other."""
    plain = NoiseSchedule.from_config(FLOW, 1 / 1000)
    turned = NoiseSchedule.from_config(FLOW, 1 / 1000, time_falls=True, output_sign=-1.0)
    at = np.array([0, 250, 999])  # σ of 1, 0.75 and 0.001
    np.testing.assert_allclose(turned.network_times(at), [0, 0.25, 0.999])
    z, noise = np.full((3, 1), 2.0), np.full((3, 1), 5.0)
    q = turned.coefficients(at)
    np.testing.assert_allclose(q.c[:, None] * z + q.d[:, None] * noise, z - noise)
    np.testing.assert_allclose(q.a[:, None] * z + q.b[:, None] * noise, [[5.0], [4.25], [2.003]])
    np.testing.assert_allclose(min_snr_weight(q, 5.0), min_snr_weight(plain.coefficients(at), 5.0))


def test_a_flow_row_by_hand() -> None:
    """σ = .75 at shift 1: x = .25z + .75ε, y = ε − z; precondition_outputs weighs by σ², sigma_sqrt by 1/σ²."""
    schedule = NoiseSchedule.from_config(FLOW | {"num_train_timesteps": 4})
    z, noise = np.full((1, 1, 2, 2), 8, np.float32), np.full((1, 1, 2, 2), 4, np.float32)
    row: dict[str, Any] = {"prompt": np.zeros(1, int), "weight": np.ones(1)}
    batch = form_batch(schedule, z, noise, np.array([1]), **row)
    assert (batch.x[0, 0, 0, 0], batch.target[0, 0, 0, 0], batch.t[0], batch.weight[0]) == (5, -4, 3, 1)
    for flow, wanted in (
        (FlowSettings(precondition_outputs=True), 0.75**2),
        (FlowSettings("sigma_sqrt"), 0.75**-2),
        (FlowSettings("sigma_sqrt", precondition_outputs=True), 1.0),
        (FlowSettings("cosmap"), 2 / math.pi / (1 - 1.5 + 2 * 0.75**2)),
    ):
        made = form_batch(replace(schedule, flow=flow), z, noise, np.array([1]), **row)
        assert made.weight[0] == pytest.approx(wanted)
    snr = (0.25 / 0.75) ** 2  # pitfall 3: SNR is ((1 − σ)/σ)², and an error in the velocity counts by σ²
    made = form_batch(schedule, z, noise, np.array([1]), **row, snr_gamma=5.0)
    assert made.weight[0] == pytest.approx(min(snr, 5.0) * 0.75**2)


@pytest.mark.parametrize(
    ("flow", "mean", "deviation"),
    [
        (FlowSettings(), 0.5, 12**-0.5),
        (FlowSettings("logit_normal"), 0.5, 0.2084),  # these by numerical integration
        (FlowSettings("logit_normal", logit_mean=1.0, logit_std=0.5), 0.7200, 0.0975),
        (FlowSettings("mode"), 0.5, 0.2154),
    ],
)
def test_where_timesteps_are_drawn(flow: FlowSettings, mean: float, deviation: float) -> None:
    schedule = NoiseSchedule("flow", flow_sigmas(FLOW), flow=flow)
    rng = np.random.default_rng(0)
    drawn = np.array([schedule.draw(rng) for _ in range(20000)])
    assert drawn.min() >= 0 and drawn.max() <= 999
    assert (drawn.mean() + 0.5) / 1000 == pytest.approx(mean, abs=0.006)
    assert drawn.std() / 1000 == pytest.approx(deviation, abs=0.004)


@needs.torch
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_the_shift_by_size_is_that_of_pictures(tokens: int, kind: str) -> None:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = FLOW | {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "time_shift_type": kind}
    ours = NoiseSchedule("flow", flow_sigmas(config), shift=ResolutionShift(config, 4096))
    theirs = FlowMatchEulerDiscreteScheduler(**{k: v for k, v in config.items() if not k.startswith("_")})
    wanted = theirs.time_shift(calculate_shift(tokens), 1.0, torch.from_numpy(ours.levels))
    np.testing.assert_allclose(ours.at_size(tokens).levels, wanted, rtol=1e-9)


def test_a_fixed_shift_grows_with_the_side() -> None:
    """Equation 23 of 2403.03206: √(m/n), so 2 for four times the tokens, on top of the schedule's own 3."""
    config = FLOW | {"shift": 3.0}
    schedule = NoiseSchedule("flow", flow_sigmas(config), shift=ResolutionShift(config, 1024))
    sigma = np.arange(1000, 0, -1) / 1000
    np.testing.assert_allclose(schedule.at_size(1024).levels, 3 * sigma / (1 + 2 * sigma), rtol=1e-12)
    np.testing.assert_allclose(schedule.at_size(4096).levels, 6 * sigma / (1 + 5 * sigma), rtol=1e-12)


def test_levels_that_nobody_trains_with_are_refused() -> None:
    with pytest.raises(ConfigError, match="use_karras_sigmas is not supported for training"):
        NoiseSchedule.from_config(FLOW | {"use_karras_sigmas": True})


def test_packing_by_hand() -> None:
    """Tokens row by row; within one, channel by channel."""
    latents = np.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    tokens = pack(latents, 2)
    assert tokens.shape == (1, 6, 8)
    assert tokens[0, 4].tolist() == [14, 15, 20, 21, 38, 39, 44, 45]
    np.testing.assert_array_equal(unpack(tokens, 2, (4, 6)), latents)
    assert pack(latents, 1) is latents


def test_a_packed_mask_weighs_the_same_latents() -> None:
    draw = np.random.default_rng(1)
    z, noise = draw.standard_normal((2, 1, 3, 4, 6)).astype(np.float32)
    mask = draw.random((1, 1, 4, 6)).astype(np.float32)
    row: dict[str, Any] = {"prompt": np.zeros(1, int), "weight": np.ones(1), "mask": mask}
    schedule = NoiseSchedule.from_config(FLOW)
    plain = form_batch(schedule, z, noise, np.array([300]), **row)
    packed = form_batch(schedule, z, noise, np.array([300]), **row, family=FamilyInputs(FLUX, 5, 3.5, 4))
    assert packed.x.shape == packed.target.shape == (1, 6, 12)
    assert plain.mask is not None and packed.mask is not None
    wanted = (plain.mask * plain.target**2).mean()
    assert (packed.mask * packed.target**2).mean() == pytest.approx(float(wanted), rel=1e-6)
    assert packed.extra["image_ids"].tolist() == [[0, r, c] for r in range(2) for c in range(3)]
    assert packed.extra["text_ids"].shape == (5, 3)
