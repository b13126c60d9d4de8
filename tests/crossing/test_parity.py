"""Every backend beside PyTorch: the same losses and gradients update for update, the same pictures, one's checkpoints
gone on with by the other.

PyTorch's runs are files that its environment has just written; without them these tests fail.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.backend import installed_backends
from dreamcore.track.metrics import read_lines

from .cases import (
    CASES,
    CONTINUED,
    GREY_LEVELS,
    TOLERANCES,
    WRITTEN,
    model_of,
    pictures_of,
    reference,
    reference_run,
    runs_on,
    settings,
)

BACKENDS = [name for name in installed_backends() if name in TOLERANCES]
pytestmark = pytest.mark.skipif(not BACKENDS, reason="no backend but PyTorch is installed here")


PAIRS = [(backend, case) for backend in BACKENDS for case in CASES if runs_on(backend, case)]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def backend(pair: tuple[str, str]) -> str:
    return pair[0]


@pytest.fixture(scope="module")
def case(pair: tuple[str, str]) -> str:
    return pair[1]


@pytest.fixture(scope="module")
def run(backend: str, case: str) -> dreamcore.Run:
    """The case's run, kept for PyTorch to read."""
    reference("models")
    folder = WRITTEN / backend / "runs" / case
    shutil.rmtree(folder, ignore_errors=True)
    return dreamcore.train(backend=backend, device="cpu", **settings(case, folder))


def generated(backend: str, model: Path, lora: Path | None, output: Path) -> np.ndarray:
    extra: dict[str, Any] = {"lora": str(lora)} if lora else {}
    place = {"pretrained_model_name_or_path": str(model), "output_dir": str(output)}
    dreamcore.generate(backend=backend, device="cpu", **place, **extra, **pictures_of(model))
    return pictures(output)


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f)) for f in sorted(folder.glob("0*.png"))]).astype(int)


def furthest(records: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> dict[str, float]:
    """Largest relative distance of each loss and of the gradient norm."""
    assert [r["step"] for r in records] == [r["step"] for r in wanted]
    found = {}
    for name in (n for n in wanted[0] if n.startswith(("loss", "grad_norm"))):
        mine, theirs = (np.array([record[name] for record in some]) for some in (records, wanted))
        found[name] = float(np.max(np.abs(mine - theirs) / np.abs(theirs)))
    return found


def test_losses_and_gradients(backend: str, case: str, run: dreamcore.Run) -> None:
    figures = furthest(run.metrics, read_lines(reference_run(case) / "metrics.jsonl"))
    note(backend, case, figures)
    assert max(figures.values()) <= TOLERANCES[backend], figures


def test_pictures(backend: str, case: str, run: dreamcore.Run, tmp_path: Path) -> None:
    """From PyTorch's trained weights, and from those trained here."""
    expected = pictures(reference("pictures") / case)
    is_lora = bool(CASES[case].get("use_lora"))
    for where in (reference_run(case), run.folder):
        model, lora = (model_of(case), where) if is_lora else (where, None)
        made = generated(backend, model, lora, WRITTEN / backend / "pictures" / case)  # the last stays for PyTorch
        levels = int(np.abs(made - expected).max())
        note(backend, case, {f"picture of {where.parents[1].name}'s": levels})
        assert levels <= GREY_LEVELS[backend], where
    start = generated(backend, model_of(case), None, tmp_path / "untrained")
    assert np.abs(start - expected).max() > 8, "training shows in the pictures"


@pytest.mark.parametrize(("backend", "method"), [pair for pair in PAIRS if pair[1] in CONTINUED])
def test_a_checkpoint_of_pytorch_goes_on(backend: str, method: str) -> None:
    """Ten updates by PyTorch, the others here: as PyTorch's own; then PyTorch takes checkpoint-20 back."""
    folder = WRITTEN / backend / "continued" / method
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint = {"resume_from_checkpoint": str(reference_run(method) / "checkpoint-10"), "checkpointing_steps": 20}
    run = dreamcore.train(backend=backend, device="cpu", **(settings(method, folder) | checkpoint))
    wanted = [r for r in read_lines(reference_run(method) / "metrics.jsonl") if r["step"] > 10]
    figures = furthest(run.metrics, wanted)
    note(backend, f"{method}, continued", figures)
    assert max(figures.values()) <= TOLERANCES[backend], figures
    assert (folder / "checkpoint-20" / "state.json").is_file()


def note(backend: str, case: str, figures: dict[str, float]) -> None:
    """Keep what was measured."""
    file = WRITTEN / backend / "figures.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {case: known.get(case, {}) | figures}, indent=1))
