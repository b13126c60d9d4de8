"""The quickstart in small: the embedded model begins to learn a subject that it has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.tinyworld import QUICKSTART, SUBJECTS, judge
from dreamcore.tinyworld.__main__ import write_subject

from ..support import needs

UPDATES = 60
SHORT = {"learning_rate": 4e-4, "random_flip": True}
"""So few updates go less far each; and the drawings that are held out face either way."""


def taught(folder: Path, **settings: object) -> tuple[list[float], list[float]]:
    """A short run of the quickstart: held-out loss, and mean subject score of the images, before and after it."""
    write_subject(folder / "mug")
    write_subject(folder / "fresh", seed=5)
    run = dreamcore.train(
        "quickstart",
        instance_data_dir=str(folder / "mug"),
        instance_prompt="a photo of a sks mug",
        validation_data_dir=str(folder / "fresh"),
        output_dir=str(folder / "run"),
        num_class_images=4,
        max_train_steps=UPDATES,
        validation_steps=UPDATES,
        report_to="none",
        device="cpu",
        **SHORT | settings,
    )
    lines = (run.folder / "validation.jsonl").read_text().splitlines()
    losses = [record["validation_loss"] for record in map(json.loads, lines) if "validation_loss" in record]
    references = np.stack([np.asarray(p) for p in SUBJECTS[QUICKSTART].pictures(5)])
    scores = []
    for step in (0, UPDATES):
        made = [np.asarray(Image.open(p)) for p in sorted((run.folder / "samples").glob(f"step-{step:06}-*.png"))]
        scores.append(float(judge.subject_scores(references, np.stack(made)).mean()))
    return losses, scores


@needs.backend
def test_the_subject_score_rises_and_the_loss_on_fixed_noise_falls(tmp_path: Path) -> None:
    losses, scores = taught(tmp_path)
    assert losses[-1] < 0.98 * losses[0]
    assert scores[-1] > scores[0] + 0.1


@needs.backend
def test_nothing_is_learned_where_nothing_is_taught(tmp_path: Path) -> None:
    """That the test above can fail."""
    losses, scores = taught(tmp_path, learning_rate=1e-12)
    assert losses[-1] == pytest.approx(losses[0], rel=1e-3)
    assert scores[-1] == pytest.approx(scores[0], abs=0.01)
