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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .coefficients import (
    Array,
    Coefficients,
    Prediction,
    discrete_coefficients,
    edm_coefficients,
    flow_coefficients,
    min_snr_weight,
)
from .samplers import samplers

if TYPE_CHECKING:
    from ..config.common import Scheduler, WeightingScheme


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


def edm_sigmas(config: Mapping[str, Any]) -> Array:
    """σ[T], falling, from an EDM scheduler's configuration (2206.00364, equation 5, or evenly in log σ)."""
    steps = int(config.get("num_train_timesteps", 1000))
    low, high = float(config.get("sigma_min") or 0.002), float(config.get("sigma_max") or 80.0)
    ramp = np.arange(steps) / steps
    if config.get("sigma_schedule", "karras") == "exponential":
        return np.asarray(high * (low / high) ** ramp, np.float64)
    rho = float(config.get("rho", 7.0))
    return np.asarray((high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho, np.float64)


FIXED_VARIANCE = "fixed_small"
"""A scheduler's variance that no network says (2006.11239, equation 7)."""


def learns_variance(config: Mapping[str, Any]) -> bool:
    """Whether the network answers with each step's variance beside the noise (2102.09672, equation 15)."""
    return config.get("variance_type") in ("learned", "learned_range")


@dataclass(frozen=True)
class FlowSettings:
    """How flow matching draws its timesteps and weighs their errors (2403.03206, section 3.1), as diffusers names it.

    What is drawn is a place u in [0, 1] of the table of noise levels, whose beginning is pure noise.
    """

    weighting_scheme: WeightingScheme = "none"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29
    precondition_outputs: bool = False

    def place(self, rng: np.random.Generator) -> float:
        """u: evenly, as the logistic function of a normal (equation 19), or with a mode (equation 20)."""
        if self.weighting_scheme == "logit_normal":
            return float(1 / (1 + np.exp(-(self.logit_mean + self.logit_std * rng.standard_normal()))))
        u = float(rng.random())
        if self.weighting_scheme == "mode":
            return 1 - u - self.mode_scale * (math.cos(math.pi * u / 2) ** 2 - 1 + u)
        return u

    def weight(self, sigma: Array) -> Array:
        """[B] of a squared error at σ: 1/σ², cosmap's 2/π/(1 − 2σ + 2σ²), or 1."""
        if self.weighting_scheme == "sigma_sqrt":
            return sigma**-2.0
        if self.weighting_scheme == "cosmap":
            return np.asarray(2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2)))
        return np.ones_like(sigma)


@dataclass(frozen=True)
class ResolutionShift:
    """The shift of flow matching's σ towards noise that larger images need (2403.03206, section 5.3.2).

    σ becomes f·σ / (1 + (f − 1)·σ), where f is √(tokens / native tokens) for a model of one fixed shift, and e^μ, or μ,
    linear in the tokens, for a model whose scheduler shifts by size (`use_dynamic_shifting`).
    """

    config: Mapping[str, Any]
    native_tokens: int
    """Tokens of an image of the model's own size."""

    def factor(self, tokens: int) -> float:
        """f."""
        if not self.config.get("use_dynamic_shifting"):
            return math.sqrt(tokens / self.native_tokens)
        low, high = self.config.get("base_image_seq_len", 256), self.config.get("max_image_seq_len", 4096)
        base, most = self.config.get("base_shift", 0.5), self.config.get("max_shift", 1.15)
        mu = float(base + (most - base) * (tokens - low) / (high - low))
        return mu if self.config.get("time_shift_type") == "linear" else math.exp(mu)


def shifted(sigma: Array, factor: float) -> Array:
    """σ, shifted towards noise by `factor`."""
    return np.asarray(factor * sigma / (1 + (factor - 1) * sigma))


def flow_sigmas(config: Mapping[str, Any]) -> Array:
    """σ[T], falling from 1, of a flow-matching scheduler's configuration; a shift by size is left to images, and so are
    the steps of Beta quantiles (2407.12173), and `flow_shift` of schedulers that solve flows among others, which
    diffusers' scripts do not train with either.

    Raises:
        ConfigError: a schedule for which nobody has trained.
    """
    for name in ("use_karras_sigmas", "use_exponential_sigmas", "invert_sigmas"):
        if config.get(name):
            raise ConfigError(f"scheduler_config.json: {name} is not supported for training")
    steps = int(config.get("num_train_timesteps", 1000))
    sigma = np.arange(steps, 0, -1) / steps
    return sigma if config.get("use_dynamic_shifting") else shifted(sigma, float(config.get("shift", 1.0)))


@dataclass(frozen=True)
class NoiseSchedule:
    """A model's noise levels: the table that the timesteps of training are indices into."""

    prediction: Prediction
    levels: Array
    """ᾱ[T] of discrete models; σ[T], from the noisiest to the clearest, of flow matching and EDM."""
    sigma_data: float = 0.5
    """EDM's standard deviation of clean latents."""
    output_sign: float = 1.0
    """Of EDM's network, whose v-prediction is of the other sign, and of a flow's that answers z − ε."""
    time_scale: float = 1.0
    """Of timesteps as the network receives them."""
    time_falls: bool = False
    """Whether a flow's network receives 1 − σ in the place of σ."""
    flow: FlowSettings = FlowSettings()
    """Flow matching's own settings."""
    shift: ResolutionShift | None = None
    """Flow matching's shift by size, where training is to have it."""
    solver: str = ""
    """A flow's own class of sampler."""

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        time_scale: float = 1.0,
        *,
        time_falls: bool = False,
        output_sign: float = 1.0,
    ) -> NoiseSchedule:
        """From the contents of `scheduler/scheduler_config.json`, and what a flow's network is given and answers.

        Raises:
            ConfigError: a prediction type or schedule that is not known.
        """
        name = str(config.get("_class_name", ""))
        if name.startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction":
            sign, falls = output_sign, time_falls
            return cls("flow", flow_sigmas(config), 0.5, sign, time_scale, falls, solver=name)
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ConfigError(
                f"scheduler_config.json: prediction_type {prediction!r} is not known; expected epsilon, v_prediction "
                "or sample"
            )
        if str(config.get("_class_name", "")).startswith("EDM"):
            sign = -1.0 if prediction == "v_prediction" else 1.0
            return cls("edm", edm_sigmas(config), float(config.get("sigma_data", 0.5)), sign, time_scale)
        return cls(prediction, alphas_cumprod(config), time_scale=time_scale)

    @property
    def num_train_timesteps(self) -> int:
        return len(self.levels)

    @property
    def samplers(self) -> tuple[Scheduler, ...]:
        """The samplers, as settings name them, that know such noise levels; the one to use by default first."""
        return tuple(samplers(self.prediction, self.solver))

    def draw(self, rng: np.random.Generator) -> int:
        """A timestep to train at: an index into the table."""
        if self.prediction == "flow":
            return min(int(self.flow.place(rng) * self.num_train_timesteps), self.num_train_timesteps - 1)
        return int(rng.integers(self.num_train_timesteps))

    def at_size(self, tokens: int) -> NoiseSchedule:
        """The noise levels for images of so many tokens."""
        if self.shift is None:
            return self
        return replace(self, levels=shifted(self.levels, self.shift.factor(tokens)), shift=None)

    def network_times(self, timesteps: NDArray[np.int64]) -> Array:
        """[B] timesteps as the network receives them."""
        if self.prediction == "edm":
            return np.asarray(self.time_scale * np.log(self.levels[timesteps]) / 4)  # c_noise of 2206.00364, table 1
        if self.prediction == "flow":
            sigma = self.levels[timesteps]
            return np.asarray(self.time_scale * self.num_train_timesteps * (1 - sigma if self.time_falls else sigma))
        return np.asarray(timesteps * self.time_scale, np.float64)

    def coefficients(self, timesteps: NDArray[np.int64]) -> Coefficients:
        """Coefficients at whole timesteps [B]."""
        levels = self.levels[timesteps]
        if self.prediction == "edm":
            return edm_coefficients(levels, self.sigma_data, self.output_sign)
        if self.prediction == "flow":
            return flow_coefficients(levels, self.output_sign)
        return discrete_coefficients(self.prediction, levels)

    def weight(self, timesteps: NDArray[np.int64]) -> Array:
        """[B] of a squared error of the network, where min-SNR does not weigh it."""
        if self.prediction != "flow":
            return self.coefficients(timesteps).output_scale ** 2
        sigma = self.levels[timesteps]  # which is how an error in the velocity counts in the clean latent
        return self.flow.weight(sigma) * (sigma**2 if self.flow.precondition_outputs else 1.0)

    def check_min_snr(self, gamma: float) -> None:
        """Raise ConfigError where some timestep has no min-SNR weight (see `min_snr_weight`)."""
        min_snr_weight(self.coefficients(np.arange(self.num_train_timesteps)), gamma)
