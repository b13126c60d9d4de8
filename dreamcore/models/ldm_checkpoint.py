"""MindONE's checkpoints of Stable Diffusion as models: a file becomes a folder in diffusers' layout, once.

Everything else in this library then meets a model like any other.  The way back is `ldm_export`.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from ..formats.ldm import OPEN_CLIP, UNET, VAE
from ..formats.mindone import BOOKKEEPING, by_part
from ..formats.mindspore_ckpt import Checkpoint
from ..formats.single_files import Contents, Layout, Part
from ..formats.tensors import Entry
from ..io.hashing import remembered_sha256
from .from_original import Said, fill_folder, identity_of
from .ldm_config import check_version
from .ldm_folder import PIPELINE
from .model_cache import made_once

FORM = 2
"""Counts changes of what the folder holds, so that an old one is not taken for a new one."""
COMPONENTS = {UNET: "unet", VAE: "vae", OPEN_CLIP: "text_encoder"}
LAYOUT = Layout(
    "Stable Diffusion",
    PIPELINE,
    (Part("unet", "unet", (UNET,)), Part("vae", "vae", (VAE,)), Part("text_encoder", "open_clip", (OPEN_CLIP,))),
)
"""MindONE's, whose text encoder is built like OpenCLIP's in both versions."""


def open_ldm_checkpoint(ckpt: Path, model_config: Path | None = None, version: str | None = None) -> Path:
    """The folder in diffusers' layout that a checkpoint of MindONE's stable_diffusion_v2 becomes.

    It is made once and is there whole or not at all, however many processes ask for it (`model_cache`).

    Args:
        ckpt: MindSpore's file.
        model_config: MindONE's YAML file that describes the network, such as v1-inference.yaml; or a folder of a model
            like it.
        version: "1.5", "2.0", "2.0-v", "2.1" or "2.1-v", for what the weights do not tell.

    Raises:
        ConfigError: the file is damaged, or no Stable Diffusion 1 or 2; `model_config` and `version` contradict it, or
            leave open what it predicts.
        RunError: the cache cannot be written.
    """
    check_version(version)
    if not ckpt.is_file():
        raise ConfigError(f"{ckpt}: no such file")
    said = [FORM, remembered_sha256(ckpt), identity_of(model_config), version]
    return made_once(said, lambda folder: convert_ldm_checkpoint(ckpt, model_config, version, folder))


def convert_ldm_checkpoint(ckpt: Path, model_config: Path | None, version: str | None, folder: Path) -> tuple[str, ...]:
    """Fill an empty folder with what a checkpoint becomes; as `open_ldm_checkpoint`.

    Returns:
        names of what it holds besides, sorted: the state of training, tables of the noise schedule.
    """
    arrays = Checkpoint(ckpt)
    by_name = by_part(arrays, str(ckpt))
    parts = {
        component: {name: Entry.of(value) for name, value in by_name[part].items()}
        for part, component in COMPONENTS.items()
    }
    left_out = tuple(sorted(filter(BOOKKEEPING.fullmatch, arrays)))
    fill_folder(folder, Contents(LAYOUT, parts, {}, left_out), Said(str(ckpt), model_config, version))
    return left_out
