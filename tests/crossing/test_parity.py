"""Every backend beside PyTorch: the same losses and gradients update for update, the same images, one's checkpoints
gone on with by the other.

PyTorch's runs are files that its environment has just written; without them these tests fail.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dreamcore
from dreamcore.backends.installed import installed_backends
from dreamcore.track.metrics import read_lines

from ..support import needs
from .cases import (
    CASES,
    GREY_LEVELS,
    IN_TURN,
    IN_TURN_METHODS,
    PICTURES,
    SHORT_CASES,
    SHORT_UPDATES,
    TOLERANCES,
    UPDATES,
    WRITTEN,
    furthest,
    model_of,
    pictures,
    reference,
    reference_run,
    settings,
    written_by,
)

BACKENDS = [name for name in installed_backends() if name in TOLERANCES]
pytestmark = pytest.mark.skipif(not BACKENDS, reason="no backend but PyTorch is installed here")


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(backend: str, case: str) -> dreamcore.Run:
    """The case's run, kept for PyTorch to read."""
    reference("models")
    folder = WRITTEN / backend / "runs" / case
    shutil.rmtree(folder, ignore_errors=True)
    return dreamcore.train(backend=backend, device="cpu", **settings(case, folder, UPDATES[backend]))


def generated(backend: str, model: Path, lora: Path | None, output: Path) -> np.ndarray:
    extra: dict[str, Any] = {"lora": str(lora)} if lora else {}
    place = {"pretrained_model_name_or_path": str(model), "output_dir": str(output)}
    dreamcore.generate(backend=backend, device="cpu", **place, **extra, **PICTURES)
    return pictures(output)


def test_losses_and_gradients(backend: str, case: str, run: dreamcore.Run) -> None:
    wanted = read_lines(reference_run(case) / "metrics.jsonl")[: UPDATES[backend]]
    assert len(run.metrics) == UPDATES[backend]
    figures = furthest(run.metrics, wanted)
    assert max(figures.values()) <= TOLERANCES[backend], figures


@pytest.mark.parametrize("short", SHORT_CASES)
def test_losses_of_short_runs(backend: str, short: str, tmp_path: Path) -> None:
    wanted = read_lines(reference_run(short) / "metrics.jsonl")
    run = dreamcore.train(backend=backend, device="cpu", **settings(short, tmp_path / "run", SHORT_UPDATES))
    assert max(furthest(run.metrics, wanted).values()) < TOLERANCES[backend]


def test_pictures(backend: str, case: str, run: dreamcore.Run, tmp_path: Path) -> None:
    """From PyTorch's trained weights, and from those trained here."""
    is_lora = bool(CASES[case].get("use_lora"))
    for where, updates, kept in (
        (reference_run(case), UPDATES["torch"], "images of PyTorch's weights"),
        (run.folder, UPDATES[backend], "pictures"),
    ):
        expected = pictures(reference("pictures") / str(updates) / case)
        model, lora = (model_of(case), where) if is_lora else (where, None)
        made = generated(backend, model, lora, WRITTEN / backend / kept / case)
        assert np.abs(made - expected).max() <= GREY_LEVELS[backend], where
    start = generated(backend, model_of(case), None, tmp_path / "untrained")
    assert np.abs(start - expected).max() > 8, "training shows in the images"


@pytest.mark.parametrize("method", IN_TURN_METHODS)
def test_a_checkpoint_of_pytorch_goes_on(backend: str, method: str) -> None:
    """Ten updates by PyTorch, the others here: as PyTorch's own.  Others go on from checkpoint-20."""
    start = reference_run(method) / "checkpoint-10"
    go_on(backend, method, start, WRITTEN / backend / "continued" / method)


@needs.paddle
@pytest.mark.parametrize("method", IN_TURN_METHODS)
def test_three_backends_in_turn(method: str, tmp_path: Path) -> None:
    """Ten updates by PyTorch, ten by MindSpore, ten by Paddle: as PyTorch's thirty."""
    start = written_by("mindspore", f"continued/{method}/checkpoint-20")
    go_on("paddle", method, start, tmp_path / "run", TOLERANCES["mindspore"])


def go_on(backend: str, method: str, checkpoint: Path, folder: Path, tolerance: float | None = None) -> None:
    """Go on from a checkpoint to `IN_TURN` updates, and compare with PyTorch's."""
    shutil.rmtree(folder, ignore_errors=True)
    more = {"resume_from_checkpoint": str(checkpoint), "backend": backend, "device": "cpu"}
    run = dreamcore.train(**(settings(method, folder, IN_TURN) | more))
    done = int(checkpoint.name.rpartition("-")[2])
    wanted = read_lines(reference_run(method) / "metrics.jsonl")[done:IN_TURN]
    figures = furthest(run.metrics, wanted)
    assert max(figures.values()) <= (tolerance or TOLERANCES[backend]), figures
