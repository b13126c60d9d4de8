"""Going on from a checkpoint: which one, and whether this run may."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..config.optimizers import NUMBERS, name_of
from ..errors import ConfigError
from ..io.files import free_name
from ..io.names import INDEX, LORA_FILE, embeddings_name
from . import checkpoint
from .checkpoint import list_checkpoints
from .manifest import Manifest

IDENTITY = {
    "model": "pretrained_model_name_or_path: the base model is not the one that the checkpoint was trained from",
    "instance_data": "instance_data_dir: the photographs or their captions are not those of the checkpoint's run",
    "class_data": "class_data_dir: the class images are not those of the checkpoint's run",
    "init_lora": "init_lora: the LoRA file is not the one that the checkpoint's run began with",
    "samples_per_update": "train_batch_size · gradient_accumulation_steps · devices: its product has changed",
}
"""Parts of a run that are compared by content -> what to say where they differ."""


@dataclass(frozen=True)
class Resumed:
    """A whole checkpoint that this run goes on from."""

    folder: Path
    state: Mapping[str, Any]

    @property
    def update(self) -> int:
        """Updates that lie behind."""
        return int(self.state["update"])

    def lies_in(self, output: Path) -> bool:
        """Whether it is a checkpoint of the run in this folder."""
        return self.folder.resolve().parent == output.resolve()

    def check_identity(self, identity: Mapping[str, Any]) -> None:
        """Refuse to go on with another model, other images or another number of samples an update.

        Raises:
            ConfigError: naming the first that differs.
        """
        for name in identity.keys() & IDENTITY.keys():
            then, now = self.state.get(name), identity[name]
            if then != now:
                numbers = f" ({then} then, {now} now)" if isinstance(now, int) else ""  # and not two hashes
                raise ConfigError(f"resume_from_checkpoint: {IDENTITY[name]}{numbers}")


def find_resumed(config: TrainConfig, output: Path, warn: Callable[[str], None]) -> Resumed | None:
    """The checkpoint that the settings ask to resume from; None where there is none yet, which is said.

    Raises:
        ConfigError: no such checkpoint, settings that cannot change, or results that going on would overwrite.
        RunError: a damaged checkpoint that was asked for by name.
    """
    resume = config.resume_from_checkpoint
    assert resume is not None
    found = checkpoint.find(resume, output, warn)
    if found is None:
        if _finished(output):  # `finished_before` says what that means
            return None
        if damaged := [folder.name for _, folder in list_checkpoints(output)]:
            raise ConfigError(
                f"resume_from_checkpoint: {output}: no whole checkpoint: {', '.join(damaged)} cannot be used; "
                "to train anew, move them away, choose another output_dir or --overwrite_output_dir"
            )
        warn(f"no checkpoint in {output} yet: starting anew")
        return None
    resumed = Resumed(*found)
    fields = type(config).model_fields
    may_change = {n for n, f in fields.items() if (f.json_schema_extra or {}).get("may_change")}  # type: ignore[union-attr]
    new = json.loads(json.dumps(config.model_dump(mode="json")))
    old = resumed.state["settings"]
    may_change |= _of_optimizer(config, old)
    checkpoint.check_resumable(_fixed(old, may_change), _fixed(new, may_change), may_change)
    if not resumed.lies_in(output):
        if list_checkpoints(output) or _finished(output):
            raise ConfigError(f"output_dir: {output}: holds another run than the checkpoint's; choose a new folder")
    elif resume != "latest":
        later = [f.name for n, f in list_checkpoints(output) if n > resumed.update]
        if later:
            raise ConfigError(
                f"resume_from_checkpoint: going on from {resumed.folder.name} would overwrite {', '.join(later)}; move "
                "them away, or choose another output_dir"
            )
    return resumed


def _of_optimizer(config: TrainConfig, old: Mapping[str, Any]) -> frozenset[str]:
    """The optimizer's numbers, where it starts afresh.

    Raises:
        ConfigError: it is another one than the checkpoint's, and does not start afresh.
    """
    if config.reset_optimizer:
        return NUMBERS
    eight, name = old.get("use_8bit_adam"), old.get("optimizer", "adamw")
    then, now = "adamw8bit" if eight and name == "adamw" else name, name_of(config)
    if then != now:
        raise ConfigError(
            f"resume_from_checkpoint: the checkpoint's optimizer is {then}, and this run's is {now}; go on with that "
            "one, or give --reset_optimizer to start the optimizer afresh"
        )
    return frozenset()


LENGTH = ("max_train_steps", "num_train_epochs", "export_format", "save_precision")
"""Settings that decide whether there is anything left to do for a run that has finished."""


def length_settings(config: TrainConfig) -> dict[str, Any]:
    """Those settings."""
    return config.model_dump(mode="json", include=set(LENGTH))


def finished_record(output: Path) -> Mapping[str, Any] | None:
    """How far the finished run in `output` went, and by which settings; None where none is on record."""
    manifest = Manifest.read(output)
    return manifest.finished if manifest is not None else None


def earlier_settings(resumed: Resumed | None, record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a run that is gone on with was given, or, where it has no checkpoint, what decided its length."""
    settings: Mapping[str, Any] | None = record["settings"] if record else None
    return settings if resumed is None else resumed.state["settings"]


def finished_before(
    config: TrainConfig, output: Path, resumed: Resumed | None, record: Mapping[str, Any] | None
) -> int | None:
    """The updates of the finished run in `output`, where these settings ask for nothing beyond it.

    Args:
        resumed: None where the run has no checkpoint.
        record: `finished_record`.

    Raises:
        ConfigError: they ask for more, and there is no checkpoint to go on from.
    """
    if not _finished(output) or (resumed is not None and not resumed.lies_in(output)):
        return None
    if record is not None:
        updates, now = int(record["updates"]), length_settings(config)
        then = {name: type(config).model_fields[name].default for name in LENGTH} | dict(record["settings"])
        if now["max_train_steps"] is not None and now["max_train_steps"] <= updates:
            then |= {name: now[name] for name in ("max_train_steps", "num_train_epochs")}
        if then == now and (resumed is None or resumed.update == updates):
            return updates
    if resumed is None:
        raise ConfigError(
            f"resume_from_checkpoint: {output} holds a finished run without a checkpoint to go on from; to train anew, "
            "choose another output_dir or --overwrite_output_dir"
        )
    return None


def _fixed(settings: Mapping[str, Any], may_change: set[str]) -> dict[str, Any]:
    """Settings; their concepts without what may change, folders for example, for a name means the same there."""
    concepts = settings.get("concepts")
    if concepts is None:
        return dict(settings)
    kept = [{name: value for name, value in concept.items() if name not in may_change} for concept in concepts]
    return {**settings, "concepts": kept}


def _finished(output: Path) -> bool:
    return any((output / name).exists() for name in (INDEX, LORA_FILE, embeddings_name(output)))


def set_damaged_aside(output: Path, update: int) -> None:
    """Rename checkpoints beyond `update`, which `latest` found damaged, so that new ones do not replace them."""
    for number, folder in list_checkpoints(output):
        if number > update:
            aside = folder.with_name(f"{folder.name}.damaged")
            os.replace(folder, free_name(aside) if aside.exists() else aside)
