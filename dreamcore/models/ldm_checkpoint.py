"""MindONE's checkpoints of Stable Diffusion as models: a file becomes a folder in diffusers' layout, once.

The folder lies in a cache, under a name that follows from the file's content and from what was said of it, so that
everything else in this library meets a model like any other.  The way back is `ldm_export`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ..errors import ConfigError
from ..formats.clip_vocabulary import END, write_clip_tokenizer
from ..formats.ldm import OPEN_CLIP, UNET, VAE, all_names, to_published
from ..formats.ldm_geometry import text_shapes, unet_shapes, vae_shapes
from ..formats.mindone import by_part
from ..formats.mindspore_ckpt import Checkpoint
from ..formats.weights import component_file, write_safetensors
from ..io.files import AGAIN, explain_disk_errors, folder_in_place
from ..io.hashing import file_sha256, remembered_sha256
from ..io.names import INDEX
from .ldm_config import Facts, Shapes, check_version, facts
from .ldm_folder import index_json, scheduler_json, text_json, unet_json, vae_json

FORM = 1
"""Counts changes of what the folder holds, so that an old one is not taken for a new one."""
LOCK_SECONDS = 3600
"""Another process that converts the same file is waited for so long."""
COMPONENTS = {UNET: "unet", VAE: "vae", OPEN_CLIP: "text_encoder"}


def open_ldm_checkpoint(ckpt: Path, model_config: Path | None = None, version: str | None = None) -> Path:
    """The folder in diffusers' layout that a checkpoint of MindONE's stable_diffusion_v2 becomes.

    It is made once (XDG_CACHE_HOME or ~/.cache, /dreambooth/models) and is there whole or not at all, however many
    processes ask for it.

    Args:
        ckpt: MindSpore's file.
        model_config: MindONE's YAML file that describes the network, such as v1-inference.yaml.
        version: "1.5", "2.0", "2.0-v", "2.1" or "2.1-v", for what the weights do not tell.

    Raises:
        ConfigError: the file is damaged, or no Stable Diffusion 1 or 2; `model_config` and `version` contradict it, or
            leave open what it predicts.
        RunError: the cache cannot be written.
    """
    check_version(version)
    for file in (ckpt, model_config):
        if file is not None and not file.is_file():
            raise ConfigError(f"{file}: no such file")
    said = [FORM, remembered_sha256(ckpt), model_config and file_sha256(model_config), version]
    name = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:40]
    target = _cache() / name
    if not target.exists():
        with explain_disk_errors(f"{target}", AGAIN):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_name(f"{name}.lock"), timeout=LOCK_SECONDS):
                if not target.exists():
                    with folder_in_place(target, target.with_name(f".{name}.part")) as folder:
                        convert_ldm_checkpoint(ckpt, model_config, version, folder)
    return target


def convert_ldm_checkpoint(ckpt: Path, model_config: Path | None, version: str | None, folder: Path) -> None:
    """Fill an empty folder with what a checkpoint becomes; as `open_ldm_checkpoint`."""
    what = str(ckpt)
    parts = by_part(Checkpoint(ckpt), what)
    shapes = Shapes(unet_shapes(parts[UNET], what), vae_shapes(parts[VAE], what), text_shapes(parts[OPEN_CLIP], what))
    known = facts(shapes, model_config, version, what)
    names = all_names(shapes.unet.geometry, shapes.vae.geometry, shapes.text.layers)
    published = {part: to_published(parts[part], names[part], what) for part in parts}
    numbers = np.result_type(*{value.dtype for value in published[OPEN_CLIP].values()}).name
    _write_settings(folder, shapes, known, numbers)
    for part, component in COMPONENTS.items():
        write_safetensors(component_file(folder / component), published[part])


def _write_settings(folder: Path, shapes: Shapes, known: Facts, numbers: str) -> None:
    files = {
        INDEX: index_json(known),
        "unet/config.json": unet_json(shapes, known),
        "vae/config.json": vae_json(shapes, known),
        "text_encoder/config.json": text_json(shapes, known, numbers),
        "scheduler/scheduler_config.json": scheduler_json(known),
    }
    for name, values in files.items():
        _write_json(folder / name, values)
    write_clip_tokenizer(folder / "tokenizer", "!" if known.second else END)


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreambooth" / "models"
