"""Settings of `dreambooth train` about which checkpoint is the best, and when it is good enough."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from .base import Settings, setting

BestBy = Literal["validation_loss", "subject", "words", "both"]
_STOP = re.compile(r"\s*no_better_for\s*=\s*([1-9]\d*)\s*")


class SelectionSettings(Settings):
    """The best checkpoint: by scores of the validation images, or by the loss on held-out photographs."""

    GROUP = "evaluation"

    evaluate_steps: int | None = setting(None, ge=1, may_change=True, example=100)
    """Updates between scorings of the validation images, which are made then; before update 1 and at the end there is
    one too.  The best checkpoint is kept as checkpoint-best."""
    judge: list[str] | None = setting(None, may_change=True, example=["dino", "clip"])
    """Who scores: encoders, each dino (ViT-S/16), clip (ViT-B/32), dinov2 (ViT-B/14), a folder or an id on the Hub; or
    tinyworld, the miniature's own, which is its default.  Of others it is dino and clip."""
    best_by: BestBy | None = setting(None, may_change=True, example="subject")
    """What checkpoint-best is the best by: validation_loss on held-out photographs (lowest), subject (likeness of the
    images to the photographs), words (truth to the prompt), or both, the geometric mean of these two.  The default is
    both with evaluate_steps (subject where the judge knows no words), else with stop_when validation_loss."""
    stop_when: str | None = setting(None, may_change=True, example="no_better_for=3")
    """End the run, and write the finished model, after so many measurements in a row that are no better than the best:
    no_better_for=N."""


def patience(config: Any) -> int | None:
    """The N of `stop_when`; None where the run goes on whatever comes."""
    found = _STOP.fullmatch(config.stop_when) if config.stop_when is not None else None
    return int(found[1]) if found else None


def wrongly_selected(config: Any) -> Iterator[str]:
    """What of these settings is wrong, or contradicts others."""
    if config.stop_when is not None and patience(config) is None:
        yield f"stop_when: {config.stop_when!r} is not known; give no_better_for=N, N from 1 on: no_better_for=3"
    if config.evaluate_steps is not None and config.final_validation_prompt is not None:
        yield (
            "final_validation_prompt: given together with evaluate_steps, whose scores of other words could not be "
            "compared; give one or the other"
        )
    if config.evaluate_steps is None and config.best_by not in (None, "validation_loss"):
        yield f"best_by: {config.best_by} needs scores of the validation images; give evaluate_steps"


def scores(config: Any) -> bool:
    """Whether validation images are scored."""
    return config.validation_prompt is not None and config.evaluate_steps is not None


def measure(config: Any) -> str | None:
    """What the best checkpoint is chosen by, as far as settings tell; None where none is kept."""
    if config.best_by is not None:
        return str(config.best_by)
    if scores(config):
        return "both"
    return "validation_loss" if config.stop_when is not None else None
