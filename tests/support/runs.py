"""Small runs for tests: a tiny model, a few updates, nothing but what the test asks for."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dreamcore.backends.protocol import Batch
from dreamcore.config import TrainConfig
from dreamcore.training.loop import Run, train
from dreamcore.training.setup import Prepared, prepare

SMALL: dict[str, Any] = {
    "instance_prompt": "a photo of sks dog",
    "max_train_steps": 4,
    "train_batch_size": 1,
    "learning_rate": 1e-4,
    "report_to": "none",
    "resolution": 32,
    "center_crop": True,
}
PRIOR: dict[str, Any] = {
    "with_prior_preservation": True,
    "class_prompt": "a photo of dog",
    "num_class_images": 3,
    "prior_num_inference_steps": 2,
}
CONCEPTS: dict[str, Any] = {"instance_data_dir": None, "instance_prompt": None}
"""Left out where concepts bring their own."""


def configuration(model: Path, photos: Path, output: Path, **settings: Any) -> TrainConfig:
    """A small run's configuration; a setting of None is left out."""
    given = {
        "pretrained_model_name_or_path": str(model),
        "instance_data_dir": str(photos),
        "output_dir": str(output),
        **SMALL,
        **settings,
    }
    return TrainConfig.from_mapping({name: value for name, value in given.items() if value is not None})


def small_run(model: Path, photos: Path, output: Path, **settings: Any) -> Run:
    """Train."""
    return train(configuration(model, photos, output, **settings))


def prepared(model: Path, photos: Path, output: Path, stack: ExitStack, **settings: Any) -> Prepared:
    """Everything of a run but its training; `stack` ends it."""
    return prepare(configuration(model, photos, output, **settings), stack)


def texts(run: Prepared, batch: Batch) -> list[str]:
    """The prompts of a batch's rows."""
    return [run.batcher.prompts.prompts[int(i)] for i in batch.prompt]


def numbers(run: Run) -> list[dict[str, Any]]:
    """The metrics without the times, which differ from run to run."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in run.metrics]
