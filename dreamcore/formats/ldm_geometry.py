"""The geometry of a Stable Diffusion in LDM's names, read from the shapes of its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from .ldm import UNetGeometry, VAEGeometry


@dataclass(frozen=True)
class UNetShapes:
    """What a UNet's arrays tell: its names' geometry, and the widths around it.

    Args:
        context: width of the words that it listens to.
        linear: whether transformers begin and end with Linear layers (SD 2), not convolutions of size 1 (SD 1).
    """

    geometry: UNetGeometry
    in_channels: int
    out_channels: int
    context: int
    linear: bool


@dataclass(frozen=True)
class VAEShapes:
    """What an autoencoder's arrays tell."""

    geometry: VAEGeometry
    in_channels: int
    out_channels: int
    latent_channels: int


@dataclass(frozen=True)
class TextShapes:
    """What a text encoder's arrays tell."""

    layers: int
    width: int
    inner: int
    vocabulary: int
    window: int


class _Shapes:
    """Shapes by name; what is missing is an error that names it."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], what: str):
        self.names, self.what = set(arrays), what
        self._arrays = arrays

    def side(self, name: str, axis: int) -> int:
        if name not in self.names:
            raise ConfigError(f"{self.what}: missing keys: {name}")
        shape = self._arrays[name].shape
        if axis >= len(shape):
            raise ConfigError(f"{self.what}: {name}: its shape {shape} has no axis {axis}")
        return int(shape[axis])

    def counted(self, name: str) -> int:
        """How many names there are of a pattern with {}, from 0 on."""
        return sum(1 for _ in takewhile(lambda number: name.format(number) in self.names, count()))


def unet_shapes(arrays: Mapping[str, NDArray[Any]], what: str) -> UNetShapes:
    """A UNet's geometry.

    Args:
        arrays: by LDM's names without `UNET`.
        what: the file, for messages.

    Raises:
        ConfigError: arrays are missing, or make no UNet of Stable Diffusion's kind.
    """
    shapes = _Shapes(arrays, what)
    levels: list[list[tuple[int, bool]]] = [[]]
    for block in count(1):
        here = f"input_blocks.{block}"
        if f"{here}.0.op.weight" in shapes.names:
            levels.append([])
        elif f"{here}.0.in_layers.2.weight" in shapes.names:
            attends = f"{here}.1.norm.weight" in shapes.names
            levels[-1].append((shapes.side(f"{here}.0.in_layers.2.weight", 0), attends))
        else:
            break
    if any(not level or len(level) != len(levels[0]) or len(set(level)) > 1 for level in levels):
        raise ConfigError(f"{what}: its blocks are no UNet of Stable Diffusion's: {levels}")
    middle = "middle_block.1"
    geometry = UNetGeometry(
        channels=tuple(level[0][0] for level in levels),
        layers=len(levels[0]),
        attention=tuple(level[0][1] for level in levels),
        depth=shapes.counted(middle + ".transformer_blocks.{}.norm1.weight"),
    )
    if (first := shapes.side("input_blocks.0.0.weight", 0)) != geometry.channels[0]:
        raise ConfigError(f"{what}: its first level has {geometry.channels[0]} channels, its first convolution {first}")
    return UNetShapes(
        geometry,
        in_channels=shapes.side("input_blocks.0.0.weight", 1),
        out_channels=shapes.side("out.2.weight", 0),
        context=shapes.side(f"{middle}.transformer_blocks.0.attn2.to_k.weight", 1),
        linear=arrays[f"{middle}.proj_in.weight"].ndim == 2 if f"{middle}.proj_in.weight" in arrays else False,
    )


def vae_shapes(arrays: Mapping[str, NDArray[Any]], what: str) -> VAEShapes:
    """An autoencoder's geometry; as `unet_shapes`, without `VAE`."""
    shapes = _Shapes(arrays, what)
    levels = shapes.counted("encoder.down.{}.block.0.conv1.weight")
    geometry = VAEGeometry(
        channels=tuple(shapes.side(f"encoder.down.{level}.block.0.conv1.weight", 0) for level in range(levels)),
        layers=shapes.counted("encoder.down.0.block.{}.conv1.weight"),
    )
    return VAEShapes(
        geometry,
        in_channels=shapes.side("encoder.conv_in.weight", 1),
        out_channels=shapes.side("decoder.conv_out.weight", 0),
        latent_channels=shapes.side("decoder.conv_in.weight", 1),
    )


def text_shapes(arrays: Mapping[str, NDArray[Any]], what: str) -> TextShapes:
    """A text encoder's sizes; as `unet_shapes`, in OpenCLIP's names without `OPEN_CLIP`."""
    shapes = _Shapes(arrays, what)
    return TextShapes(
        layers=shapes.counted("transformer.resblocks.{}.ln_1.weight"),
        width=shapes.side("token_embedding.weight", 1),
        inner=shapes.side("transformer.resblocks.0.mlp.c_fc.weight", 0),
        vocabulary=shapes.side("token_embedding.weight", 0),
        window=shapes.side("positional_embedding", 0),
    )
