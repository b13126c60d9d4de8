"""Diffusion as four coefficients: what the network sees, what it must answer, and how much an error weighs.

For a clean latent z and noise ε, both of any shape,

    x = a·z + b·ε   (network input)        y = c·z + d·ε   (target)

whatever the parameterisation, so no backend ever asks which one it is.  The noise levels come from the model's own
scheduler configuration; the arithmetic follows Ho et al. 2020 (arXiv 2006.11239), Salimans & Ho 2022 (2202.00512, v),
Lin et al. 2023 (2305.08891, zero terminal SNR), Karras et al. 2022 (2206.00364, EDM) and Lipman et al. 2022
(2210.02747, flow matching).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

Array = NDArray[np.float64]
Prediction = Literal["epsilon", "v_prediction", "sample", "flow", "edm"]
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample", "flow", "edm")


@dataclass(frozen=True)
class Coefficients:
    """a, b, c, d, each of shape [B], and `output_scale` [B], by which an error of the network counts (c_out of EDM)."""

    a: Array
    b: Array
    c: Array
    d: Array
    output_scale: Array


def betas(config: Mapping[str, Any]) -> Array:
    """β[T] from a diffusers scheduler configuration.

    Raises:
        ConfigError: a `beta_schedule` that is not known.
    """
    if config.get("trained_betas") is not None:
        given: Array = np.asarray(config["trained_betas"], np.float64)
        return given
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return np.linspace(start, end, steps)
    if kind == "scaled_linear":
        return np.asarray(np.linspace(start**0.5, end**0.5, steps) ** 2, np.float64)
    if kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021 (2102.09672), equation 17
        edges = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.asarray(np.minimum(1 - edges[1:] / edges[:-1], 0.999), np.float64)
    raise ConfigError(
        f"scheduler_config.json: beta_schedule {kind!r} is not known; expected linear, scaled_linear or "
        "squaredcos_cap_v2"
    )


def alphas_cumprod(config: Mapping[str, Any]) -> Array:
    """ᾱ[T], with zero terminal SNR where `rescale_betas_zero_snr` asks for it (2305.08891, algorithm 1)."""
    table = np.cumprod(1.0 - betas(config))
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(table)
        table = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    return np.asarray(table, np.float64)


def discrete_coefficients(prediction: Prediction, alpha_bar: Array) -> Coefficients:
    """Coefficients at ᾱ [B] for ε-, v- and x₀-prediction."""
    a, b = np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)
    zero, one = np.zeros_like(a), np.ones_like(a)
    c, d = {"epsilon": (zero, one), "v_prediction": (-b, a), "sample": (one, zero)}[prediction]
    return Coefficients(a, b, c, d, one)


def flow_coefficients(sigma: Array) -> Coefficients:
    """Coefficients at σ [B] in [0, 1] for flow matching: x = (1−σ)·z + σ·ε, y = ε − z."""
    one = np.ones_like(sigma)
    return Coefficients(1.0 - sigma, sigma, -one, one, one)


def edm_coefficients(sigma: Array, sigma_data: float = 0.5) -> Coefficients:
    """Coefficients at σ [B] for EDM's preconditioned network (2206.00364, table 1).

    The network's raw output F is compared; the denoiser's error is c_out·F's, which `output_scale` carries.
    """
    total = sigma**2 + sigma_data**2
    c_in, c_skip, c_out = 1.0 / np.sqrt(total), sigma_data**2 / total, sigma * sigma_data / np.sqrt(total)
    return Coefficients(c_in, c_in * sigma, (1.0 - c_skip) / c_out, -c_skip * sigma / c_out, c_out)


def snr(coefficients: Coefficients) -> Array:
    """Signal-to-noise ratio (a/b)² [B]; infinite without noise."""
    with np.errstate(divide="ignore"):
        return np.asarray((coefficients.a / coefficients.b) ** 2)


def min_snr_weight(coefficients: Coefficients, gamma: float) -> Array:
    """Min-SNR-γ weight [B] of a squared error in the prediction (2303.09556), one formula for every parameterisation.

    An error δy in the prediction is an error −b/(ad−bc)·δy in the clean latent, whose square min-SNR weighs by
    min(SNR, γ).  For ε-prediction this is min(SNR, γ)/SNR, for v-prediction min(SNR, γ)/(SNR+1).

    Raises:
        ConfigError: where SNR is 0 and the prediction says nothing of the clean latent (ε with zero terminal SNR).
    """
    q = coefficients
    determinant = q.a * q.d - q.b * q.c
    if np.any(determinant == 0):
        raise ConfigError(
            "snr_gamma: this model predicts noise and its schedule ends at SNR 0, where min-SNR has no value; "
            "leave snr_gamma out, or use a v-prediction model"
        )
    return np.asarray(np.minimum(snr(q), gamma) * (q.b / determinant) ** 2)


@dataclass(frozen=True)
class NoiseSchedule:
    """A model's noise levels: `prediction` and, for discrete models, ᾱ[T]."""

    prediction: Prediction
    alpha_bar: Array

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """From the contents of `scheduler/scheduler_config.json`.

        Raises:
            ConfigError: a prediction type or schedule that is not known.
        """
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ConfigError(
                f"scheduler_config.json: prediction_type {prediction!r} is not known; expected epsilon, v_prediction "
                "or sample"
            )
        return cls(prediction, alphas_cumprod(config))

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alpha_bar)

    def coefficients(self, timesteps: NDArray[np.int64]) -> Coefficients:
        """Coefficients at whole timesteps [B]."""
        return discrete_coefficients(self.prediction, self.alpha_bar[timesteps])

    def check_min_snr(self, gamma: float) -> None:
        """Raise ConfigError where some timestep has no min-SNR weight (see `min_snr_weight`)."""
        min_snr_weight(self.coefficients(np.arange(self.num_train_timesteps)), gamma)
