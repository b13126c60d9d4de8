"""What the network sees, what it must answer, and how much an error weighs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

if TYPE_CHECKING:
    pass


Array = NDArray[np.float64]
Prediction = Literal["epsilon", "v_prediction", "sample", "flow", "edm"]


@dataclass(frozen=True)
class Coefficients:
    """a, b, c, d, each of shape [B], and `output_scale` [B], by which an error of the network counts (c_out of EDM)."""

    a: Array
    b: Array
    c: Array
    d: Array
    output_scale: Array


def discrete_coefficients(prediction: Prediction, alpha_bar: Array) -> Coefficients:
    """Coefficients at ᾱ [B] for ε-, v- and x₀-prediction."""
    a, b = np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)
    zero, one = np.zeros_like(a), np.ones_like(a)
    c, d = {"epsilon": (zero, one), "v_prediction": (-b, a), "sample": (one, zero)}[prediction]
    return Coefficients(a, b, c, d, one)


def flow_coefficients(sigma: Array, sign: float = 1.0) -> Coefficients:
    """Coefficients at σ [B] in [0, 1] for flow matching: x = (1−σ)·z + σ·ε, y = ε − z, or z − ε for a `sign` of −1."""
    one = np.ones_like(sigma)
    return Coefficients(1.0 - sigma, sigma, -sign * one, sign * one, one)


def edm_coefficients(sigma: Array, sigma_data: float = 0.5, sign: float = 1.0) -> Coefficients:
    """Coefficients at σ [B] for EDM's preconditioned network (2206.00364, table 1).

    The network's raw output F is compared; the denoiser's error is c_out·F's, which `output_scale` carries.  `sign` is
    c_out's: −1 where the network answers v.
    """
    total = sigma**2 + sigma_data**2
    c_in, c_skip, c_out = 1.0 / np.sqrt(total), sigma_data**2 / total, sign * sigma * sigma_data / np.sqrt(total)
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
