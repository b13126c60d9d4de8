"""The coefficients and weights against diffusers' schedulers, closed forms and values worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dreamcore.diffusion.coefficients import (
    Coefficients,
    Prediction,
    discrete_coefficients,
    edm_coefficients,
    flow_coefficients,
    min_snr_weight,
    snr,
)
from dreamcore.diffusion.schedule import NoiseSchedule, alphas_cumprod, betas
from dreamcore.errors import ConfigError

from ..support import needs

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CONFIGS: list[dict[str, Any]] = [
    {},
    SD,
    SD | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    {"beta_schedule": "linear", "num_train_timesteps": 50, "beta_start": 0.002, "beta_end": 0.3},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 10, "rescale_betas_zero_snr": True},
    {"trained_betas": [0.1, 0.2, 0.4]},
]
ALPHA_BAR = alphas_cumprod(SD)
TIMESTEPS = np.array([0, 1, 250, 500, 999])


def column(values: np.ndarray) -> np.ndarray:
    return values[:, None]


def formed(q: Coefficients, z: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the module's docstring, for [B, N] z and noise."""
    return column(q.a) * z + column(q.b) * noise, column(q.c) * z + column(q.d) * noise


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.standard_normal((5, 64)), draw.standard_normal((5, 64))


@needs.torch
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_noise_levels_as_in_diffusers(config: dict[str, Any]) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler.from_config(dict(config)).alphas_cumprod.double().numpy()
    ours = NoiseSchedule.from_config(config)
    assert ours.num_train_timesteps == len(theirs)
    np.testing.assert_allclose(ours.levels, theirs, rtol=2e-5, atol=2e-7)  # theirs are products in float32
    if config.get("rescale_betas_zero_snr"):
        assert ours.levels[-1] == 0.0


def test_noise_levels_by_hand() -> None:
    np.testing.assert_allclose(alphas_cumprod({"trained_betas": [0.1, 0.2, 0.5]}), [0.9, 0.72, 0.36])
    np.testing.assert_allclose(
        betas({"beta_start": 0.04, "beta_end": 0.36, "beta_schedule": "scaled_linear", "num_train_timesteps": 3}),
        [0.04, 0.16, 0.36],
    )
    # roots of ᾱ .9, .8, .6 become (r − .6)·.9/.3
    rescaled = alphas_cumprod(
        {"trained_betas": [0.19, 1 - 0.64 / 0.81, 1 - 0.36 / 0.64], "rescale_betas_zero_snr": True}
    )
    np.testing.assert_allclose(rescaled, [0.81, 0.36, 0.0], atol=1e-15)
    # Stable Diffusion's ends, as its papers and users quote them: σ from 0.0292 to 14.6
    sigma = np.sqrt((1 - ALPHA_BAR) / ALPHA_BAR)
    np.testing.assert_allclose(sigma[[0, -1]], [0.0292, 14.6146], rtol=2e-3)


@needs.torch
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_input_and_target_as_in_diffusers(prediction: str, zero_snr: bool, drawn: Any) -> None:
    import torch
    from diffusers import DDPMScheduler

    config = SD | {"prediction_type": prediction, "rescale_betas_zero_snr": zero_snr}
    z, noise = drawn
    x, y = formed(NoiseSchedule.from_config(config).coefficients(TIMESTEPS), z, noise)
    scheduler, t = DDPMScheduler.from_config(config), torch.from_numpy(TIMESTEPS)
    z_t, noise_t = torch.from_numpy(z), torch.from_numpy(noise)
    target = {
        "epsilon": lambda: noise_t,
        "v_prediction": lambda: scheduler.get_velocity(z_t, noise_t, t),
        "sample": lambda: z_t,
    }[prediction]()
    np.testing.assert_allclose(x, scheduler.add_noise(z_t, noise_t, t).numpy(), atol=1e-5)
    np.testing.assert_allclose(y, target.numpy(), atol=1e-5)


def test_input_and_target_by_hand() -> None:
    alpha_bar, z, noise = np.array([0.64]), np.array([[10.0]]), np.array([[5.0]])
    for prediction, target in (("epsilon", 5.0), ("v_prediction", 0.8 * 5 - 0.6 * 10), ("sample", 10.0)):
        x, y = formed(discrete_coefficients(prediction, alpha_bar), z, noise)  # type: ignore[arg-type]
        assert x == pytest.approx(0.8 * 10 + 0.6 * 5)
        assert y == pytest.approx(target)


@needs.torch
def test_flow_matching_as_in_diffusers(drawn: Any) -> None:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    z, noise = drawn
    sigma = scheduler.sigmas[TIMESTEPS].double().numpy()
    x, y = formed(flow_coefficients(sigma), z, noise)
    theirs = scheduler.scale_noise(torch.from_numpy(z), scheduler.timesteps[TIMESTEPS], torch.from_numpy(noise))
    np.testing.assert_allclose(x, theirs.numpy(), atol=1e-6)
    np.testing.assert_allclose(y, noise - z)  # the velocity dx/dσ
    np.testing.assert_allclose(x - column(sigma) * y, z, atol=1e-12)


@needs.torch
def test_edm_as_in_diffusers(drawn: Any) -> None:
    """Weighing F's error by c_out² is weighing the denoiser's error by one."""
    import torch
    from diffusers import EDMEulerScheduler

    z, noise = drawn
    scheduler = EDMEulerScheduler(sigma_data=0.5)
    sigma = np.array([0.002, 0.1, 0.5, 3.0, 80.0])
    q = edm_coefficients(sigma, sigma_data=0.5)
    x, y = formed(q, z, noise)
    noisy, sigma_t = torch.from_numpy(z + column(sigma) * noise), torch.from_numpy(column(sigma))
    np.testing.assert_allclose(x, scheduler.precondition_inputs(noisy, sigma_t).numpy(), rtol=1e-12)
    perfect = scheduler.precondition_outputs(noisy, torch.from_numpy(y), sigma_t).numpy()
    np.testing.assert_allclose(perfect, z, atol=1e-9)
    answer = y + np.random.default_rng(1).standard_normal(y.shape)
    denoised = scheduler.precondition_outputs(noisy, torch.from_numpy(answer), sigma_t).numpy()
    np.testing.assert_allclose(
        ((denoised - z) ** 2).mean(1), q.output_scale**2 * ((answer - y) ** 2).mean(1), rtol=1e-6
    )


def test_edm_by_hand() -> None:
    """σ = 1.5, σ_data = 2: the root of σ² + σ_data² is 2.5, c_skip = .64, c_out = 1.2, c_in = .4."""
    q = edm_coefficients(np.array([1.5]), sigma_data=2.0)
    values = np.array([q.a, q.b, q.c, q.d, q.output_scale]).ravel()
    np.testing.assert_allclose(values, [0.4, 0.6, 0.36 / 1.2, -0.64 * 1.5 / 1.2, 1.2])


@needs.torch
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_snr_and_min_snr_from_diffusers_snr(prediction: Prediction) -> None:
    """min(SNR, γ)/SNR for noise, min(SNR, γ)/(SNR + 1) for v, with diffusers' own SNR; gammas below, amid and above."""
    import torch
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    theirs = compute_snr(DDPMScheduler.from_config(SD), torch.arange(1000)).double().numpy()
    q = discrete_coefficients(prediction, ALPHA_BAR)
    np.testing.assert_allclose(snr(q), theirs, rtol=2e-4)
    for gamma in (1e-3, 1.0, 5.0, 1e5):
        divisor = theirs if prediction == "epsilon" else theirs + 1
        np.testing.assert_allclose(min_snr_weight(q, gamma), np.minimum(theirs, gamma) / divisor, rtol=4e-4)


@pytest.mark.parametrize(
    ("prediction", "weight"), [("epsilon", 5 / 9), ("v_prediction", 0.5), ("sample", 5.0)], ids=str
)
def test_min_snr_by_hand(prediction: Prediction, weight: float) -> None:
    """ᾱ = .9 has SNR 9; γ = 5."""
    q = discrete_coefficients(prediction, np.array([0.9, 0.5]))
    np.testing.assert_allclose(snr(q), [9.0, 1.0])
    below = {"epsilon": 1.0, "v_prediction": 0.5, "sample": 1.0}[
        prediction
    ]  # SNR 1 is below γ: the weight is without it
    np.testing.assert_allclose(min_snr_weight(q, 5.0), [weight, below])


def test_min_snr_of_flow_and_edm_by_hand() -> None:
    sigma = np.array([0.2, 0.5, 1.0])  # SNR ((1−σ)/σ)² = 16, 1, 0
    np.testing.assert_allclose(snr(flow_coefficients(sigma)), [16, 1, 0])
    np.testing.assert_allclose(min_snr_weight(flow_coefficients(sigma), 5.0), [5 * 0.04, 0.25, 0.0])
    q = edm_coefficients(np.array([0.25, 2.0]), sigma_data=0.5)  # SNR 1/σ² = 16, 1/4
    np.testing.assert_allclose(snr(q), [16, 0.25])
    np.testing.assert_allclose(min_snr_weight(q, 5.0), [5 * 0.05, 0.25 * 4 / 17])  # c_out² = σ²/4 / (σ² + 1/4)


def test_min_snr_means_the_same_in_every_parameterisation(drawn: Any) -> None:
    """One wrong clean latent, told as ε, v and x₀: the weighted squared error is min(SNR, γ)·‖δz‖² each time."""
    z, noise = drawn
    guess = z + np.random.default_rng(2).standard_normal(z.shape)
    alpha_bar = ALPHA_BAR[TIMESTEPS]
    for prediction in ("epsilon", "v_prediction", "sample"):
        q = discrete_coefficients(prediction, alpha_bar)  # type: ignore[arg-type]
        x, y = formed(q, z, noise)
        implied = (x - column(q.a) * guess) / column(q.b)  # the noise that goes with the guess
        answer = column(q.c) * guess + column(q.d) * implied
        loss = min_snr_weight(q, 5.0) * ((answer - y) ** 2).mean(1)
        expected = np.minimum(alpha_bar / (1 - alpha_bar), 5.0) * ((guess - z) ** 2).mean(1)
        np.testing.assert_allclose(loss, expected, rtol=1e-9)


def test_min_snr_with_zero_terminal_snr() -> None:
    table = alphas_cumprod(SD | {"rescale_betas_zero_snr": True})
    with pytest.raises(ConfigError, match=r"snr_gamma.*v-prediction"):
        min_snr_weight(discrete_coefficients("epsilon", table), 5.0)
    weights = min_snr_weight(discrete_coefficients("v_prediction", table), 5.0)
    assert weights[-1] == 0.0
    assert np.all(weights[:-1] > 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"beta_schedule": "sigmoid"}, "'sigmoid'"), ({"prediction_type": "flow"}, "prediction_type 'flow'")],
)
def test_unknown_schedules_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NoiseSchedule.from_config(config)
