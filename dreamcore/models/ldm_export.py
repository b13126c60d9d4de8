"""A Stable Diffusion in diffusers' layout as the one file that MindONE's stable_diffusion_v2 loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..formats.ldm import UNetGeometry
from ..formats.mindone import mindone_name
from ..formats.mindspore_ckpt import write_ckpt
from ..formats.tensors import as_float
from ..io.names import INDEX
from .folder import ModelFolder
from .ldm_checkpoint import LAYOUT
from .ldm_folder import PIPELINE
from .original_geometry import configured_geometry
from .to_original import part_entries


def write_ldm_checkpoint(model_folder: Path, file: Path) -> tuple[str, ...]:
    """Write a Stable Diffusion in diffusers' layout as one checkpoint that MindONE's stable_diffusion_v2 loads.

    Its schedule and what it predicts are not in there: MindONE has them from its YAML files.

    Returns:
        names, COMPONENT/NAME, of what has no place in it: position numbers, which old files hold.

    Raises:
        ConfigError: another kind of model, pickled weights, arrays that are missing or left over.
    """
    model = ModelFolder.open(str(model_folder))
    if model.index["_class_name"] != PIPELINE:
        raise ConfigError(
            f"{model.path / INDEX}: is a {model.index['_class_name']}; only a {PIPELINE} can be written for MindONE's "
            "stable_diffusion_v2"
        )
    arrays: dict[str, NDArray[Any]] = {}
    left_over: list[str] = []
    for part in LAYOUT.parts:
        there = part_entries(model, part)
        left_over += [f"{part.component}/{name}" for name in there.left_out]
        arrays |= {mindone_name(part.prefixes[0] + name): as_float(entry) for name, entry in there.tensors.items()}
    write_ckpt(file, arrays)
    return tuple(left_over)


def unet_geometry(model: ModelFolder) -> UNetGeometry:
    """How a Stable Diffusion's UNet is built."""
    part = LAYOUT.denoiser
    found = configured_geometry(part, model.config(part.component), model.folder(part.component) / "config.json")
    assert isinstance(found, UNetGeometry), "of a UNet"
    return found
