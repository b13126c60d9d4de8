"""Every family on every backend beside PyTorch that runs it: the same losses and gradients update for update, the same
images, PyTorch's checkpoints gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dreamcore
from dreamcore.backends.installed import installed_backends
from dreamcore.track.metrics import read_lines

from .cases import (
    FAMILY_CASES,
    FAMILY_UPDATES,
    TOLERANCES,
    WRITTEN,
    furthest,
    grey_levels,
    model_of,
    pictures,
    pictures_of,
    reference,
    reference_run,
    runs_on,
    settings,
    tolerance,
)

PAIRS = [(backend, case) for backend in installed_backends() if backend in TOLERANCES for case in runs_on(backend)]
pytestmark = pytest.mark.skipif(not PAIRS, reason="no backend but PyTorch runs other families here")


@pytest.mark.parametrize(("backend", "case"), PAIRS)
def test_a_run_and_its_pictures(backend: str, case: str) -> None:
    reference("models")
    folder = WRITTEN / backend / "runs" / case
    shutil.rmtree(folder, ignore_errors=True)
    run = dreamcore.train(backend=backend, device="cpu", **settings(case, folder, FAMILY_UPDATES))
    assert len(run.metrics) == FAMILY_UPDATES
    figures = furthest(run.metrics, read_lines(reference_run(case) / "metrics.jsonl"))
    assert max(figures.values()) <= tolerance(backend, case), figures
    is_lora = bool(FAMILY_CASES[case].get("use_lora"))
    output = WRITTEN / backend / "pictures" / case
    place: dict[str, Any] = {"output_dir": str(output)} | ({"lora": str(folder)} if is_lora else {})
    model = model_of(case) if is_lora else folder
    dreamcore.generate(
        backend=backend, device="cpu", pretrained_model_name_or_path=str(model), **place, **pictures_of(case)
    )
    expected = pictures(reference("pictures") / str(FAMILY_UPDATES) / case)
    assert np.abs(pictures(output) - expected).max() <= grey_levels(backend, case)


@pytest.mark.parametrize(("backend", "case"), [(b, c) for b, c in PAIRS if b != "mindspore" or "full with" in c])
def test_a_checkpoint_of_pytorch_goes_on(backend: str, case: str, tmp_path: Path) -> None:
    checkpoint = reference_run(case) / "checkpoint-5"
    more = {"resume_from_checkpoint": str(checkpoint), "backend": backend, "device": "cpu"}
    run = dreamcore.train(**(settings(case, tmp_path / "run", 7) | more))
    figures = furthest(run.metrics, read_lines(reference_run(case) / "metrics.jsonl")[5:7])
    assert max(figures.values()) <= tolerance(backend, case), figures
