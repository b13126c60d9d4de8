"""A Stable Diffusion in diffusers' layout as the one file that MindONE's stable_diffusion_v2 loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..formats.ldm import Names, UNetGeometry, VAEGeometry, all_names, from_published
from ..formats.mindone import mindone_name
from ..formats.mindspore_ckpt import write_ckpt
from ..formats.ppdiffusers import PUBLISHED
from ..formats.weights import IGNORED, Arrays, known_names, read_weights
from ..io.names import INDEX
from .folder import ModelFolder
from .ldm_checkpoint import COMPONENTS
from .ldm_folder import PIPELINE


def write_ldm_checkpoint(model_folder: Path, file: Path) -> tuple[str, ...]:
    """Write a Stable Diffusion in diffusers' layout as one checkpoint that MindONE's stable_diffusion_v2 loads.

    Its schedule and what it predicts are not in there: MindONE has them from its YAML files.

    Returns:
        names, COMPONENT/NAME, of what has no place in it: position numbers, which old files hold.

    Raises:
        ConfigError: another kind of model, weights that only PyTorch reads, arrays that are missing or left over.
    """
    model = ModelFolder.open(str(model_folder))
    if model.index["_class_name"] != PIPELINE:
        raise ConfigError(
            f"{model.path / INDEX}: is a {model.index['_class_name']}; only a {PIPELINE} can be written for MindONE's "
            "stable_diffusion_v2"
        )
    names = _names(model)
    arrays: dict[str, NDArray[Any]] = {}
    left_over: list[str] = []
    for part, component in COMPONENTS.items():
        wanted = {name for published in names[part].values() for name in published}
        there = _read(model, component)
        left_over += [f"{component}/{name}" for name in there if name.endswith(IGNORED)]
        old = from_published(known_names(there, wanted), names[part], str(model.folder(component)))
        arrays |= {mindone_name(part + name): value for name, value in old.items()}
    write_ckpt(file, arrays)
    return tuple(left_over)


def unet_geometry(model: ModelFolder) -> UNetGeometry:
    """How a Stable Diffusion's UNet is built."""
    blocks = _field(model, "unet", "down_block_types", list)
    return UNetGeometry(
        tuple(_field(model, "unet", "block_out_channels", list)),
        _field(model, "unet", "layers_per_block", int),
        tuple(str(kind).startswith("CrossAttn") for kind in blocks),
        _field(model, "unet", "transformer_layers_per_block", int, 1),
    )


def _names(model: ModelFolder) -> dict[str, Names]:
    unet = unet_geometry(model)
    widths = tuple(_field(model, "vae", "block_out_channels", list))
    vae = VAEGeometry(widths, _field(model, "vae", "layers_per_block", int))
    if len(unet.channels) != len(unet.attention):
        raise ConfigError(
            f"{model.folder('unet') / 'config.json'}: down_block_types: one for each of block_out_channels"
        )
    return all_names(unet, vae, _field(model, "text_encoder", "num_hidden_layers", int))


def _field(model: ModelFolder, component: str, name: str, kind: type, default: Any = None) -> Any:
    value = model.config(component).get(name, default)
    if not isinstance(value, kind):
        raise ConfigError(
            f"{model.folder(component) / 'config.json'}: {name}: expected {kind.__name__}; received {value!r:.80}"
        )
    return value


def _read(model: ModelFolder, component: str) -> Arrays:
    paddles = model.index[component][0] in PUBLISHED
    return read_weights(model.weight_files(component), paddles=paddles)
