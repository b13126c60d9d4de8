"""The least settings that a command takes."""

from __future__ import annotations

from typing import Any

from dreamcore.config import TrainConfig

TRAIN = {
    "pretrained_model_name_or_path": "model",
    "instance_data_dir": "photos",
    "instance_prompt": "a photo of sks dog",
}
GENERATE = {"pretrained_model_name_or_path": "model", "prompt": "a photo of sks dog"}


def train(**values: Any) -> TrainConfig:
    return TrainConfig.from_mapping(TRAIN | values)
