"""`dreambooth plan`: a table, JSON, the time that a run measured, and no framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import dreamcore
from dreamcore.cli.main import main
from dreamcore.training import memory_plan

from ..support import needs
from ..support.runs import configuration, small_run

pytestmark = needs.backend


def words(model: Path, photos: Path, output: Path, *more: str) -> list[str]:
    given = configuration(model, photos, output).given()
    return ["plan", *(f"--{name}={value}" for name, value in given.items()), *more]


def test_table_and_json(tiny_model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tiny_model, photos, tmp_path, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in found["stages"]] == [
        "loading the model",
        "encoding prompts",
        "encoding images",
        "training",
        "saving",
    ]
    for stage in found["stages"]:
        for place in ("device", "host"):
            items = sum(item["bytes"] for item in stage["items"] if item["place"] == place)
            assert (stage[place] or 0) == items
    assert main(words(tiny_model, photos, tmp_path)) == 0
    table = capsys.readouterr().out
    assert "unet: weights, 32 bits" in table and "counted" in table and "predicted" in table
    assert "Time, predicted from operations alone: " in table
    assert found["expected"]["operations"] > 0 and found["seconds_per_update"] is None
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_the_time_that_a_run_took(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, max_train_steps=3)
    times = [record["seconds"] for record in run.metrics]
    alike = configuration(tiny_model, photos, tmp_path, max_train_steps=30)
    assert min(times) <= (dreamcore.plan(alike).seconds or 0) <= max(times)
    assert dreamcore.plan(alike).updates == 30
    assert dreamcore.plan(alike, train_batch_size=2).seconds is None


def test_what_does_not_fit_is_said(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dreamcore.placement.machine import Machine

    monkeypatch.setattr(memory_plan, "find_machine", lambda backend, device: Machine("cuda:0", 2**20, 2**20, 2**40))
    assert main(words(tiny_model, photos, tmp_path)) == 0
    assert "memory: " in (said := capsys.readouterr().out) and "of cuda:0, which has" in said


def test_no_framework_is_imported(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    code = """
import sys
from dreamcore.cli.main import main
assert main(sys.argv[1:]) == 0
print(sorted({"torch", "paddle", "mindspore", "diffusers"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", code, *words(tiny_model, photos, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
