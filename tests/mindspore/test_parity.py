"""Thirty updates beside PyTorch's, and the pictures that the trained weights make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.track.metrics import read_lines

from .. import needs
from ..crossing.cases import CASES, PICTURES, UPDATES, WRITTEN, model_of, reference, reference_run, settings

pytestmark = needs.mindspore
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(case: str) -> dreamcore.Run:
    """The case's run, kept for PyTorch to read."""
    folder = WRITTEN / "mindspore" / "runs" / case
    return dreamcore.train(backend="mindspore", device="cpu", overwrite_output_dir=True, **settings(case, folder))


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f)) for f in sorted(folder.glob("0*.png"))]).astype(int)


def generated(model: Path, lora: Path | None, output: Path) -> np.ndarray:
    extra = {"lora": str(lora)} if lora else {}
    dreamcore.generate(
        backend="mindspore",
        device="cpu",
        pretrained_model_name_or_path=str(model),
        output_dir=str(output),
        **extra,
        **PICTURES,
    )
    return pictures(output)


def test_losses_gradients_and_pictures(case: str, run: dreamcore.Run, tmp_path: Path) -> None:
    wanted = read_lines(reference_run(case) / "metrics.jsonl")
    assert len(run.metrics) == len(wanted) == UPDATES
    figures = {}
    for name in [n for n in wanted[0] if n.startswith(("loss", "grad_norm"))]:
        mine, theirs = (np.array([record[name] for record in records]) for records in (run.metrics, wanted))
        figures[name] = float(np.max(np.abs(mine - theirs) / np.abs(theirs)))
        assert figures[name] <= TOLERANCE, name
    is_lora = bool(CASES[case].get("use_lora"))
    expected = pictures(reference("pictures") / case)
    for where in (reference_run(case), run.folder):
        model, lora = (model_of(case), where) if is_lora else (where, None)
        made = generated(model, lora, WRITTEN / "mindspore" / "pictures" / case)  # the last stays for PyTorch
        figures["picture"] = int(max(figures.get("picture", 0), np.abs(made - expected).max()))
    assert figures["picture"] <= 2
    start = generated(model_of(case), None, tmp_path / "untrained")
    assert np.abs(start - expected).max() > 8, "training shows in the pictures"
    note(case, figures)


def note(case: str, figures: dict[str, float]) -> None:
    """Keep what was measured, for the table in the README."""
    file = WRITTEN / "mindspore" / "figures.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {case: figures}, indent=1))


@pytest.mark.parametrize("method", ["full with prior", "lora"])
def test_a_checkpoint_of_pytorch_goes_on(method: str) -> None:
    """Ten updates by PyTorch, ten here: as PyTorch's own twenty; then PyTorch takes the checkpoint back."""
    folder = WRITTEN / "mindspore" / "continued" / method
    mine = settings(method, folder) | {
        "resume_from_checkpoint": str(reference_run(method) / "checkpoint-10"),
        "checkpointing_steps": 20,
    }
    shutil.rmtree(folder, ignore_errors=True)
    run = dreamcore.train(backend="mindspore", device="cpu", **mine)
    wanted = read_lines(reference_run(method) / "metrics.jsonl")[10:]
    assert [r["step"] for r in run.metrics] == [r["step"] for r in wanted] == list(range(11, 31))
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([r[name] for r in run.metrics], [r[name] for r in wanted], rtol=TOLERANCE)
    assert (folder / "checkpoint-20" / "state.json").is_file()
