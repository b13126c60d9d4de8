"""docs/files.md describes every file of a run, and every field of those that are read by name, and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dreamcore.backends import installed

from ..support import stub_backend
from ..support.described import CHECKPOINT, JSON_FILES, tables, undescribed
from ..support.stub_runs import train

KEPT = {"diff_output_preservation": True, "class_prompt": "a mug"}
SCORED = {"evaluate_steps": 1, "judge": ["tinyworld"]}
ELSEWHERE = {
    "validation.jsonl": {"place", "DINO", "DINOv2", "CLIP-I", "CLIP-T"},
    "metrics.jsonl": {"lr_text_encoder", "lr_text_encoder_2", "lr_effective", "skipped"},
}
"""Fields that only other runs have: of text encoders that train, of Prodigy, and of fp16; of other judges."""


@pytest.fixture(scope="module")
def runs(stub_model: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs that between them write all that the stub can."""
    folder = tmp_path_factory.mktemp("said")
    more = {"validation_share": 0.4, "with_prior_preservation": True, "class_prompt": "a mug", "num_class_images": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "entry_points", lambda: {stub_backend.NAME: f"{stub_backend.__name__}:load"})
        full = train(stub_model, drawn, folder / "full", **more, report_to="tensorboard")
        lora = train(stub_model, drawn, folder / "lora", use_lora=True, max_train_steps=2, **KEPT, **SCORED)
    return [full.folder, lora.folder]


def test_what_they_write_is_described(runs: list[Path], tmp_path: Path) -> None:
    assert {run.name: undescribed(run) for run in runs} == {"full": [], "lora": []}
    other = shutil.copytree(runs[0], tmp_path / "full")
    (other / "unheard-of.json").write_text("{}")
    status = json.loads((other / "status.json").read_text())
    (other / "status.json").write_text(json.dumps(status | {"colour": "teal"}))
    assert undescribed(other) == ["status.json: colour", "unheard-of.json"], "what is not described is found"


def test_what_is_described_is_written(runs: list[Path]) -> None:
    said = tables()
    for name, section in JSON_FILES.items():
        written = {key for run in runs for key in json.loads((run / name).read_text())}
        assert written == {*said[section][0]}, name
    for name in ("metrics.jsonl", "validation.jsonl"):
        lines = [line for run in runs if (run / name).exists() for line in (run / name).read_text().splitlines()]
        written = {key for line in lines for key in json.loads(line)} | ELSEWHERE.get(name, set())
        assert written == {*said[name][0]}, name
    states = [state for run in runs for state in run.glob("checkpoint-*/state.json")]
    assert {key for state in states for key in json.loads(state.read_text())} == {*said[CHECKPOINT][1]}
