"""LoRA of MindONE's stable_diffusion_v2, `.ckpt` files of LoRA alone, as files that every backend reads, and back."""

from __future__ import annotations

from pathlib import Path

from ..formats.lora import read_lora
from ..formats.mindone_lora import lora_from_mindone, lora_to_mindone
from ..formats.mindspore_ckpt import Checkpoint, write_ckpt
from ..formats.weights import write_safetensors
from .folder import ModelFolder
from .ldm_export import unet_geometry


def read_mindone_lora(file: Path, model: ModelFolder, target: Path) -> None:
    """Write what a LoRA `.ckpt` holds for `model` into a safetensors file.

    Raises:
        ConfigError: the file is damaged, or holds something else than LoRA for this model.
    """
    write_safetensors(target, lora_from_mindone(Checkpoint(file), str(file), unet_geometry(model)))


def write_mindone_lora(lora: Path, model: ModelFolder, target: Path) -> None:
    """Write a LoRA file in diffusers' names as MindONE's text_to_image.py loads it."""
    write_ckpt(target, lora_to_mindone(read_lora(lora), str(lora), unet_geometry(model)))
