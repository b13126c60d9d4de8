"""Weights under the names of another trainer's layout, written beside each checkpoint (`runs.layout`)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ..config import TrainConfig
from ..errors import ConfigError
from ..formats.torch_bin import write_bin
from ..formats.weights import read_weights
from ..io.names import INDEX, LORA_FILE
from ..models.folder import ModelFolder
from ..models.ldm_export import write_ldm_checkpoint
from ..models.ldm_folder import PIPELINE
from ..models.mindone_lora import write_mindone_lora
from ..runs.folder import RunFolder
from ..runs.layout import LAYOUTS, Names, free_place, place_of


def check_layout(config: TrainConfig, model: ModelFolder) -> None:
    """Refuse, before training, a layout whose weights cannot hold what trains.

    Raises:
        ConfigError: another family than Stable Diffusion 1 and 2, LoRA beside the attentions, or other factors than
            LoRA's two for a library that has no others.
    """
    other = None
    if config.use_lora and config.lora_method not in ("lora", "pissa"):
        other = f"lora_method: {config.lora_method}"
    elif config.use_lora and config.lora_method == "lora" and config.use_dora:
        other = "use_dora"
    if other is not None and config.export_format == "ppdiffusers":
        raise ConfigError(f"{other}: ppdiffusers reads plain LoRA alone; leave it out, or give export_format diffusers")
    if other is not None and LAYOUTS[config.layout].weights:
        raise ConfigError(
            f"{other}: the checkpoints of layout {config.layout} hold plain LoRA alone; leave it out, or give layout "
            "mindone"
        )
    if not LAYOUTS[config.layout].weights:
        return
    if (pipeline := model.index["_class_name"]) != PIPELINE:
        raise ConfigError(
            f"layout: {config.layout} has checkpoints of Stable Diffusion 1 and 2 alone, and this model is a "
            f"{pipeline}; give layout mindone, or dreambooth"
        )
    known = tuple(f".{layer}" for layer in model.family.lora_layers)
    layers = config.lora_layers if config.use_lora else None
    if others := [layer for layer in layers or () if not f".{layer}".endswith(known)]:
        raise ConfigError(
            f"lora_layers: {', '.join(others)}: the checkpoints of layout {config.layout} hold LoRA of the attentions "
            f"alone ({', '.join(model.family.lora_layers)}); leave lora_layers out, or give layout mindone"
        )


def owes_weights(run: RunFolder, names: Names, epoch: int) -> bool:
    """Whether a run that was killed has saved a checkpoint, which ends this epoch, and not its second name."""
    return bool(names.weights) and not place_of(run.path, run.manifest, names.weights.format(epoch=epoch)).exists()


def also_weights(run: RunFolder, checkpoint: Path, model: ModelFolder, names: Names, epoch: int, kept: int) -> None:
    """Write a checkpoint's weights where the layout has them.

    Args:
        epoch: that the checkpoint ends, from 1.
        kept: weights of so many epochs stay.
    """
    if names.weights:
        target = free_place(run.path, run.manifest, names.weights.format(epoch=epoch))
        if (checkpoint / LORA_FILE).is_file():
            write_mindone_lora(checkpoint / LORA_FILE, model, target)
        else:
            with TemporaryDirectory(dir=run.manifest.records) as folder:
                write_ldm_checkpoint(_whole(model, checkpoint, Path(folder)), target)
        _remove_older(run, names, kept)


def also_network(checkpoint: Path, model: ModelFolder, names: Names) -> None:
    """Write the denoiser of a checkpoint that is being made as PyTorch's pickle, with its configuration beside it."""
    denoiser = checkpoint / model.family.denoiser
    if names.network and denoiser.is_dir():
        write_bin(checkpoint / names.network, read_weights(sorted(denoiser.glob("*.safetensors"))))
        shutil.copyfile(denoiser / "config.json", checkpoint / "config.json")


def _whole(model: ModelFolder, checkpoint: Path, folder: Path) -> Path:
    """The model with a checkpoint's components in place of its own, by links."""
    shutil.copyfile(model.path / INDEX, folder / INDEX)
    for name in model.components:
        own = checkpoint / name
        (folder / name).symlink_to((own if own.is_dir() else model.folder(name)).resolve())
    return folder


def _remove_older(run: RunFolder, names: Names, kept: int) -> None:
    """Remove the weights, of those on record, of all but the last epochs."""
    pattern = re.compile(re.escape(names.weights).replace(r"\{epoch\}", r"(\d+)"))
    ours = sorted((int(m[1]), name) for name in run.manifest.files if (m := pattern.fullmatch(name)))
    there = [name for _, name in ours if (run.path / name).is_file()]
    for name in there[: max(0, len(there) - kept)]:
        (run.path / name).unlink()
