"""AdamW on every backend: each component's decay; and its state in files, where a backend counts its steps itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..formats.optimizer_state import ADAMW, Counters, read_counters, read_moments, save_optimizer
from ..formats.weights import Arrays
from .loss_scale import LossScale


class StoredAdamW(ABC):
    """Saves and loads; a backend says where its moments are.

    Args:
        loss_scale: fp16's dynamic loss scale; None for other precisions.
    """

    def __init__(self, loss_scale: LossScale | None):
        self.loss_scale = loss_scale
        self.steps = 0
        """Updates that were applied."""

    @abstractmethod
    def moments(self) -> Arrays:
        """Under the parameters' published names and `FIRST` or `SECOND`, as files hold them."""

    @abstractmethod
    def put_moments(self, arrays: Arrays) -> None:
        """`moments` undone; `steps` is right by now."""

    @abstractmethod
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """Of the parameters, as files hold them."""

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, for fp16."""
        return self.loss_scale is not None

    def scaled(self, loss: Any) -> Any:
        """What the backward pass starts from."""
        return loss * self.loss_scale.scale if self.loss_scale else loss

    def save(self, folder: Path) -> None:
        """Write the moments and the counters."""
        scaler = asdict(self.loss_scale) if self.loss_scale else {}
        save_optimizer(folder, self.moments() if self.steps else {}, Counters(ADAMW, self.steps, scaler))

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            ConfigError: the state of another optimizer.
            RunError: moments that are missing, left over or of another shape.
        """
        counters = read_counters(folder)
        arrays = read_moments(folder, self.shapes(), counters)
        self.steps = counters.step
        if arrays:
            self.put_moments(arrays)
        if self.loss_scale and counters.scaler:
            self.loss_scale = LossScale(**counters.scaler)


def weight_decays(config: TrainConfig, components: Sequence[str]) -> dict[str, float]:
    """AdamW's decay of each component: the denoiser, then the text encoders that train."""
    decays = dict.fromkeys(components, config.adam_weight_decay)
    for encoder in components[1:]:
        other = config.adam_weight_decay_text_encoder
        decays[encoder] = decays[encoder] if other is None else other
    return decays
