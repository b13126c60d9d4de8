"""How often, in updates, things are done besides updating."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import TrainConfig
from ..config.selecting import scores


@dataclass(frozen=True)
class Intervals:
    """How often, in updates, things are done besides updating."""

    logging: int
    checkpointing: int
    checkpoints_kept: int | None
    validation: int | None
    """None where there is nothing to validate."""
    validates_at_end: bool = True
    keeps_last: bool = True
    evaluation: int | None = None
    """None where images are not scored."""

    def spares(self, done: int, total: int) -> bool:
        """Whether the checkpoint after `done` updates of `total` is kept only until the finished model is written; one
        that has no other before it stays, for the run to go on from."""
        return done == total > self.checkpointing and done % self.checkpointing != 0 and not self.keeps_last

    def validates(self, done: int, total: int) -> bool:
        """Whether the model is looked at after `done` updates of `total`."""
        if self.validation is None:
            return False
        return self.validates_at_end if done == total else done % self.validation == 0 or self.evaluates(done, total)

    def evaluates(self, done: int, total: int) -> bool:
        """Whether the validation's images are scored after `done` updates of `total`."""
        if self.evaluation is None:
            return False
        return self.validates_at_end if done == total else done % self.evaluation == 0

    @property
    def checkpoints_in_training(self) -> int | None:
        """Checkpoints kept while the run trains: the newest in any case."""
        return None if self.checkpoints_kept is None else max(1, self.checkpoints_kept)

    @classmethod
    def from_config(cls, config: TrainConfig, updates_per_epoch: int, *, validates: bool) -> Intervals:
        validation = None
        if validates and config.validation_epochs is not None:
            validation = config.validation_epochs * updates_per_epoch
        elif validates:
            validation = config.validation_steps
        epochs = config.checkpointing_epochs
        checkpointing = config.checkpointing_steps if epochs is None else epochs * updates_per_epoch
        kept, at_end = config.checkpoints_total_limit, validates and not config.skip_final_inference
        scored = config.evaluate_steps if scores(config) else None
        return cls(config.logging_steps, checkpointing, kept, validation, at_end, config.checkpoint_last, scored)
