"""A run that is asked for images and to stop, from outside, ends with the same numbers as one that is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from dreamcore.runs import requests
from dreamcore.runs.requests import new_request
from dreamcore.training.metrics_recorder import MetricsRecorder

from ..support import needs
from ..support.runs import numbers, small_run

pytestmark = needs.backend

SETTINGS: dict[str, Any] = {
    "use_lora": True, "rank": 2, "lora_dropout": 0.2, "use_ema": True, "random_flip": True, "center_crop": None,
    "validation_prompt": "a sks dog", "validation_steps": 100, "num_validation_images": 1,
    "validation_num_inference_steps": 1, "skip_final_inference": True,
}  # fmt: skip


def test_nothing_of_it_is_learnt(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small_run(tiny_model, photos, tmp_path / "whole", **SETTINGS, max_train_steps=3)
    out = tmp_path / "out"
    plain, worded, stop = (
        new_request(out, "sample"),
        new_request(out, "sample", "a dog at sea"),
        new_request(out, "stop"),
    )
    due = {1: [plain], 2: [worded], 3: [stop]}
    note = MetricsRecorder.note

    def noted(self: MetricsRecorder, update: int, *rest: Any) -> None:
        note(self, update, *rest)
        for request in due.get(update, ()):
            request.ask()

    with monkeypatch.context() as patch:
        patch.setattr(requests, "LOOK_SECONDS", 0.0)
        patch.setattr(MetricsRecorder, "note", noted)
        run = small_run(tiny_model, photos, out, **SETTINGS, max_train_steps=9)
    assert (run.updates, run.exit_code) == (3, 143)
    assert plain.read_answer() == {"update": 1, "files": ["samples/step-000001-0.png"]}
    assert worded.read_answer() == {"update": 2, "files": ["samples/asked-000002-1-0.png"]}
    assert numbers(run) == numbers(whole)
    files = sorted(file.name for file in (whole.folder / "checkpoint-3").glob("*.safetensors"))
    assert "ema.safetensors" in files and "optimizer.safetensors" in files
    for name in files:
        mine, theirs = (load_file(folder / "checkpoint-3" / name) for folder in (out, whole.folder))
        assert mine.keys() == theirs.keys()
        assert all((mine[key] == theirs[key]).all() for key in mine), name
