"""How a model's networks are built, as far as their names in the original layout depend on it: from configurations in
diffusers' layout, or from the shapes of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..formats.flux import FluxGeometry, FluxShapes, flux_names, flux_shapes
from ..formats.ldm import UNetGeometry, VAEGeometry, depths, text_names, unet_names, vae_names
from ..formats.ldm_geometry import Shaped, TextShapes, UNetShapes, VAEShapes, text_shapes, unet_shapes, vae_shapes
from ..formats.renaming import Names
from ..formats.sd3 import SD3Geometry, SD3Shapes, sd3_names, sd3_shapes
from ..formats.single_files import Part
from ..formats.t5_names import T5Shapes, t5_names, t5_shapes

Shapes = UNetShapes | VAEShapes | TextShapes | T5Shapes | SD3Shapes | FluxShapes
Geometry = UNetGeometry | VAEGeometry | SD3Geometry | FluxGeometry | int
"""Of text encoders, how many layers they have."""


def shapes_of(part: Part, tensors: Mapping[str, Shaped], what: str) -> Shapes:
    """What a part's tensors tell, by the file's names without what they begin with there.

    Raises:
        ConfigError: tensors are missing, or make no network of that kind.
    """
    if part.kind in ("clip", "open_clip"):
        return text_shapes(tensors, what, part.kind == "open_clip")
    readers: dict[str, Callable[[Mapping[str, Shaped], str], Shapes]]
    readers = {"unet": unet_shapes, "vae": vae_shapes, "t5": t5_shapes, "sd3": sd3_shapes, "flux": flux_shapes}
    return readers[part.kind](tensors, what)


def geometry_in(shapes: Shapes) -> Geometry:
    """The geometry that shapes tell."""
    return shapes.layers if isinstance(shapes, TextShapes | T5Shapes) else shapes.geometry


def names_of(part: Part, geometry: Geometry) -> Names:
    """The names of a part of that geometry, the file's without what they begin with there."""
    match geometry:
        case UNetGeometry():
            return unet_names(geometry)
        case VAEGeometry():
            return vae_names(geometry)
        case SD3Geometry():
            return sd3_names(geometry)
        case FluxGeometry():
            return flux_names(geometry)
        case layers if part.kind == "t5":
            return t5_names(layers)
        case layers:
            return text_names(layers, part.kind == "open_clip", part.projects)


def configured_geometry(part: Part, config: Mapping[str, Any], where: Path) -> Geometry:
    """The geometry that a configuration tells.

    Args:
        where: its file, for messages.

    Raises:
        ConfigError: a field is missing or of another kind.
    """
    said = _Said(config, where)
    match part.kind:
        case "unet":
            return _unet(said)
        case "vae":
            quantized = bool(config.get("use_quant_conv", True))
            return VAEGeometry(tuple(said("block_out_channels", list)), said("layers_per_block", int), quantized)
        case "sd3":
            dual = tuple(config.get("dual_attention_layers") or ())
            return SD3Geometry(said("num_layers", int), config.get("qk_norm") is not None, dual)
        case "flux":
            guided = bool(config.get("guidance_embeds", False))
            return FluxGeometry(said("num_layers", int), said("num_single_layers", int), guided)
        case "t5":
            return int(said("num_layers", int))
    return int(said("num_hidden_layers", int))


class _Said:
    """A configuration's fields, each of the kind that is asked for."""

    def __init__(self, config: Mapping[str, Any], where: Path):
        self.config, self.where = config, where

    def __call__(self, name: str, kind: type, default: Any = None) -> Any:
        value = self.config.get(name, default)
        if not isinstance(value, kind):
            raise ConfigError(f"{self.where}: {name}: expected {kind.__name__}; received {value!r:.80}")
        return value


def _unet(said: _Said) -> UNetGeometry:
    channels = tuple(said("block_out_channels", list))
    attention = tuple(str(kind).startswith("CrossAttn") for kind in said("down_block_types", list))
    if len(channels) != len(attention):
        raise ConfigError(f"{said.where}: down_block_types: one for each of block_out_channels")
    deep = said.config.get("transformer_layers_per_block", 1)
    deep = [deep] * len(channels) if isinstance(deep, int) else deep
    if not isinstance(deep, list) or len(deep) != len(channels) or not all(isinstance(n, int) for n in deep):
        raise ConfigError(f"{said.where}: transformer_layers_per_block: one for each level; received {deep!r:.80}")
    return UNetGeometry(
        channels,
        said("layers_per_block", int),
        attention,
        depths(deep, attention),
        labelled=said.config.get("addition_embed_type") == "text_time",
    )
