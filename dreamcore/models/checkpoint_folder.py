"""A checkpoint of full training as a model: the finished run's folder around it, with the checkpoint's own networks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError
from ..io.names import CONFIG, EMA_FILE, EMBEDDINGS_FILE, INDEX, LORA_FILE, STATE_FILE
from .fields import read_json

SETTING = "pretrained_model_name_or_path"
AVERAGING = "adamw_schedulefree"
"""The optimizer whose finished weights are an average that its state holds."""


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint of full training."""
    return (folder / STATE_FILE).is_file() and not (folder / LORA_FILE).is_file() and not (folder / INDEX).is_file()


def checkpoint_networks(folder: Path) -> Mapping[str, tuple[str, Path]]:
    """The networks that a checkpoint holds, for `ModelFolder.replaced` of the run that it lies in.

    Raises:
        ConfigError: the run has not finished, or its finished weights would be others than these: with the command
            that makes a model of the checkpoint.
    """
    folder = folder.absolute()
    state = read_json(folder / STATE_FILE)
    settings = state.get("settings") or {}
    why = None
    if not (folder.parent / INDEX).is_file():
        why = "the run that it lies in has no finished model, whose other parts it needs"
    elif (folder / EMA_FILE).is_file() or settings.get("optimizer") == AVERAGING:
        why = "its finished weights are averages"
    elif (folder / EMBEDDINGS_FILE).is_file():
        why = "its new words are no weights of a network"
    if why is not None:
        asked = f"--resume_from_checkpoint {shlex.quote(str(folder))} --max_train_steps {state.get('update')}"
        raise ConfigError(
            f"{SETTING}: {folder}: a checkpoint, and {why}; make a model of it: dreambooth train --config "
            f"{shlex.quote(str(folder.parent / CONFIG))} {asked} --output_dir NEW_FOLDER"
        )
    there = sorted(part for part in folder.iterdir() if (part / "config.json").is_file())
    return {part.name: (SETTING, part) for part in there}
