"""Weights & Biases, where it is installed and asked for.

Nothing here sets a mode, a key or any other variable: `WANDB_MODE=offline`, `wandb login` and the like are the user's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .base import Level, RunInfo
from .tensorboard import tag

PROJECT = "dreambooth"


class WandB:
    """A run of the project `dreambooth` (or WANDB_PROJECT); a resumed run goes on under its id."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, info: RunInfo) -> None:
        import os

        import wandb

        info.logging_dir.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=info.folder.resolve().name,
            dir=str(info.logging_dir),
            config=dict(info.settings),
            id=run_id(info),
            resume="allow",
        )
        # A step of our own: W&B's counter refuses to go back to the checkpoint.
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")

    def update(self, record: Mapping[str, float | int]) -> None:
        self._run.log({"update": record["step"]} | {f"train/{k}": v for k, v in record.items() if k != "step"})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"update": step} | {tag(name): value for name, value in values.items()})

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        import wandb

        self._run.log({"update": step, "validation/pictures": [wandb.Image(str(p), caption=prompt) for p in paths]})

    def message(self, text: str, level: Level = "info") -> None:
        return None

    def close(self, outcome: str) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=int(outcome == "failed"))


def run_id(info: RunInfo) -> str:
    """The run's id at W&B: a new one, or on resuming that which the logging folder holds."""
    path = info.logging_dir / "wandb_id.txt"
    if info.first_update == 1 or not path.exists():
        path.write_text(uuid.uuid4().hex[:8], encoding="ascii")
    return path.read_text(encoding="ascii")
