"""What latents are to a model: their channels, their size, and how they are scaled for the denoiser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..families import AUTOENCODERS, AutoencoderClass, Family
from ..formats.tensors import as_float
from ..formats.weights import open_weights
from ..io.names import INDEX

Planes = NDArray[np.float32]


class Described(Protocol):
    """What is asked of a `ModelFolder`."""

    @property
    def path(self) -> Path: ...

    @property
    def family(self) -> Family: ...

    def class_name(self, component: str) -> str: ...

    def config(self, component: str) -> dict[str, Any]: ...

    def needed(self, component: str, field: str) -> Any: ...

    def weight_files(self, component: str) -> list[Path]: ...


@dataclass(frozen=True)
class LatentSpace:
    """Of one model."""

    channels: int
    factor: int
    """Pixels of the image along one side of a latent's pixel."""
    shift: Planes
    """[C, 1, 1] or [1, 1, 1]: latents are (what the autoencoder answers − shift) · scale; of [C, 2, 2] each number is
    of its place in every square of 2 × 2 latents."""
    scale: Planes

    @classmethod
    def of(cls, model: Described) -> LatentSpace:
        """As a model's autoencoder has it; images are their own latents where there is none.

        Raises:
            ConfigError: a class that is not known, or a configuration that leaves out what only it can say.
        """
        if (vae := model.family.vae) is None:
            return cls(3, 1, _planes([0.0]), _planes([1.0]))
        kind, config = autoencoder_class(model), model.config(vae)
        levels, channels = model.needed(vae, kind.levels), int(model.needed(vae, kind.channels))
        factor = int(2 ** (len(levels) - kind.top))
        if kind.statistics is not None:
            return cls(channels, factor, *_statistics(model, kind.statistics))
        usual = model.family.usual_scaling
        for name in kind.scaling if usual is None else ():
            model.needed(vae, name)
        scale = float(config.get("scaling_factor", usual or 1.0))
        mean, std = config.get("latents_mean"), config.get("latents_std")
        shift = [config.get("shift_factor") or 0.0] if mean is None else mean
        return cls(channels, factor, _planes(shift), _planes([scale / s for s in std] if std is not None else [scale]))

    def scaled(self, mean: Planes, std: Planes) -> tuple[Planes, Planes]:
        """What the autoencoder answers, each [N, C, h, w], as the denoiser learns from it."""
        shift, scale = (_of_size(planes, mean.shape) for planes in (self.shift, self.scale))
        return (mean - shift) * scale, std * scale

    def unscaled(self, latents: Planes) -> Planes:
        """The denoiser's latents [N, C, h, w] as the autoencoder decodes them."""
        shift, scale = (_of_size(planes, latents.shape) for planes in (self.shift, self.scale))
        return latents / scale + shift


def autoencoder_class(model: Described) -> AutoencoderClass:
    """What the class of a model's autoencoder says of it.

    Raises:
        ConfigError: a class that is not known.
    """
    name = model.class_name(str(model.family.vae))
    if name not in AUTOENCODERS:
        raise ConfigError(
            f"{model.path / INDEX}: {model.family.vae} is a {name}; expected an autoencoder of class "
            f"{', '.join(AUTOENCODERS)}"
        )
    return AUTOENCODERS[name]


def _statistics(model: Described, names: tuple[str, str]) -> tuple[Planes, Planes]:
    """Shift and scale of a batch normalisation, z ↦ (z − mean) / √(variance + ε), from the autoencoder's weights."""
    vae = str(model.family.vae)
    files = model.weight_files(vae)
    entries = open_weights(files).entries
    for name in names:
        if name not in entries:
            raise ConfigError(f"{files[0]}: has no weight {name}, which says how latents are scaled")
    mean, variance = (np.asarray(as_float(entries[name]), np.float32).reshape(-1, 2, 2) for name in names)
    epsilon = np.float32(model.family.statistics_epsilon or model.config(vae).get("batch_norm_eps", 1e-4))
    return mean, np.asarray(1 / np.sqrt(variance + epsilon))


def _of_size(planes: Planes, shape: tuple[Any, ...]) -> Planes:
    side = planes.shape[1]
    return planes if side == 1 else np.tile(planes, (1, shape[2] // side, shape[3] // side))


def _planes(values: Iterable[float]) -> Planes:
    return np.array(list(values), np.float32).reshape(-1, 1, 1)
