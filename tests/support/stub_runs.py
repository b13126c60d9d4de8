"""Runs that train nothing, on a backend that computes nothing, and folders in every state that a run can leave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dreamcore
from dreamcore.io.names import MANIFEST, RECORDS
from dreamcore.training.loop import Run

STATES = ("none", "finished", "stopped", "damaged", "without records", "records damaged")


def train(model: Path, photos: Path, output: Path | str, **settings: Any) -> Run:
    """Four updates, a checkpoint after the second and the last, two validation images each time."""
    given = {
        "pretrained_model_name_or_path": str(model),
        "instance_data_dir": str(photos),
        "instance_prompt": "a photo of a sks mug",
        "output_dir": str(output),
        "max_train_steps": 4,
        "train_batch_size": 1,
        "checkpointing_steps": 2,
        "validation_prompt": "a mug",
        "validation_steps": 2,
        "num_validation_images": 2,
        "report_to": "none",
        **settings,
    }
    return dreamcore.train(**{name: value for name, value in given.items() if value is not None})


def put_into_state(folder: Path, state: str) -> None:
    """Turn a finished run's folder into another."""
    if state == "stopped":
        (folder / "model_index.json").unlink()
        shutil.rmtree(folder / "checkpoint-4")
    if state == "damaged":
        (folder / "checkpoint-4" / "state.json").write_text("{")
        (folder / "checkpoint-2" / "optimizer.safetensors").unlink()
        (folder / "metrics.jsonl").write_text("{")
    if state == "without records":
        shutil.rmtree(folder / RECORDS)
    if state == "records damaged":
        (folder / RECORDS / MANIFEST).write_text('{"format": 1, "files": ["../photos/0.png"], "moving": "replaced-1"}')


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name there; a link is followed only where it leads to a file."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def manifest(folder: Path) -> dict[str, Any]:
    """What a run's folder has on record."""
    content: dict[str, Any] = json.loads((folder / RECORDS / MANIFEST).read_text())
    return content
