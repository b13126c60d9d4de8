"""The geometry of a Stable Diffusion in LDM's names, read from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Protocol

from ..errors import ConfigError
from .ldm import UNetGeometry, VAEGeometry, depths


class Shaped(Protocol):
    """An array, or a tensor that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class UNetShapes:
    """What a UNet's arrays tell: its names' geometry, and the widths around it.

    Args:
        context: width of the words that it listens to.
        linear: whether transformers begin and end with Linear layers (SD 2), not convolutions of size 1 (SD 1).
        labels: width of what SD XL is told besides; None in others.
    """

    geometry: UNetGeometry
    in_channels: int
    out_channels: int
    context: int
    linear: bool
    labels: int | None = None


@dataclass(frozen=True)
class VAEShapes:
    """What an autoencoder's arrays tell."""

    geometry: VAEGeometry
    in_channels: int
    out_channels: int
    latent_channels: int


@dataclass(frozen=True)
class TextShapes:
    """What a text encoder's arrays tell; `projection` is the width after its projection, None where it has none."""

    layers: int
    width: int
    inner: int
    vocabulary: int
    window: int
    projection: int | None = None


class Sides:
    """Shapes by name; what is missing is an error that names it."""

    def __init__(self, arrays: Mapping[str, Shaped], what: str):
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


def unet_shapes(arrays: Mapping[str, Shaped], what: str) -> UNetShapes:
    """A UNet's geometry.

    Args:
        arrays: by LDM's names without `UNET`.
        what: the file, for messages.

    Raises:
        ConfigError: arrays are missing, or make no UNet of Stable Diffusion's kind.
    """
    shapes = Sides(arrays, what)
    levels: list[list[tuple[int, bool, int]]] = [[]]
    for block in count(1):
        here = f"input_blocks.{block}"
        if f"{here}.0.op.weight" in shapes.names:
            levels.append([])
        elif f"{here}.0.in_layers.2.weight" in shapes.names:
            attends = f"{here}.1.norm.weight" in shapes.names
            depth = shapes.counted(f"{here}.1.transformer_blocks.{{}}.norm1.weight") if attends else 1
            levels[-1].append((shapes.side(f"{here}.0.in_layers.2.weight", 0), attends, depth))
        else:
            break
    if any(not level or len(level) != len(levels[0]) or len(set(level)) > 1 for level in levels):
        raise ConfigError(f"{what}: its blocks are no UNet of Stable Diffusion's: {levels}")
    middle = "middle_block.1"
    attention, deep = tuple(level[0][1] for level in levels), [level[0][2] for level in levels]
    last = shapes.counted(middle + ".transformer_blocks.{}.norm1.weight")
    if attention[-1] and deep[-1] != last:
        raise ConfigError(
            f"{what}: its middle has {last} blocks, its last level {deep[-1]}: no Stable Diffusion's UNet"
        )
    labels = "label_emb.0.0.weight"
    geometry = UNetGeometry(
        channels=tuple(level[0][0] for level in levels),
        layers=len(levels[0]),
        attention=attention,
        depth=depths([*deep[:-1], last], attention),
        labelled=labels in shapes.names,
    )
    if (first := shapes.side("input_blocks.0.0.weight", 0)) != geometry.channels[0]:
        raise ConfigError(f"{what}: its first level has {geometry.channels[0]} channels, its first convolution {first}")
    return UNetShapes(
        geometry,
        in_channels=shapes.side("input_blocks.0.0.weight", 1),
        out_channels=shapes.side("out.2.weight", 0),
        context=shapes.side(f"{middle}.transformer_blocks.0.attn2.to_k.weight", 1),
        linear=f"{middle}.proj_in.weight" in arrays and len(arrays[f"{middle}.proj_in.weight"].shape) == 2,
        labels=shapes.side(labels, 1) if geometry.labelled else None,
    )


def vae_shapes(arrays: Mapping[str, Shaped], what: str) -> VAEShapes:
    """An autoencoder's geometry; as `unet_shapes`, without `VAE`."""
    shapes = Sides(arrays, what)
    levels = shapes.counted("encoder.down.{}.block.0.conv1.weight")
    geometry = VAEGeometry(
        channels=tuple(shapes.side(f"encoder.down.{level}.block.0.conv1.weight", 0) for level in range(levels)),
        layers=shapes.counted("encoder.down.0.block.{}.conv1.weight"),
        quantized="quant_conv.weight" in shapes.names,
    )
    return VAEShapes(
        geometry,
        in_channels=shapes.side("encoder.conv_in.weight", 1),
        out_channels=shapes.side("decoder.conv_out.weight", 0),
        latent_channels=shapes.side("decoder.conv_in.weight", 1),
    )


def text_shapes(arrays: Mapping[str, Shaped], what: str, open_clip: bool = True) -> TextShapes:
    """A text encoder's sizes; as `unet_shapes`, in OpenCLIP's names without `OPEN_CLIP`, or in the published ones."""
    shapes = Sides(arrays, what)
    if open_clip:
        tokens, window = "token_embedding.weight", "positional_embedding"
        layers, inner = "transformer.resblocks.{}.ln_1.weight", "transformer.resblocks.0.mlp.c_fc.weight"
        projection, axis = "text_projection", 1
    else:
        tokens, window = (f"text_model.embeddings.{x}_embedding.weight" for x in ("token", "position"))
        layers, inner = (f"text_model.encoder.layers.{x}.weight" for x in ("{}.layer_norm1", "0.mlp.fc1"))
        projection, axis = "text_projection.weight", 0
    return TextShapes(
        layers=shapes.counted(layers),
        width=shapes.side(tokens, 1),
        inner=shapes.side(inner, 0),
        vocabulary=shapes.side(tokens, 0),
        window=shapes.side(window, 0),
        projection=shapes.side(projection, axis) if projection in shapes.names else None,
    )
