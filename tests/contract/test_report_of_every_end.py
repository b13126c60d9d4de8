"""A run's report is there however the run ends, and says how it did; it never stands in an error's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamcore.errors import RunError
from dreamcore.report import collect
from dreamcore.training import run_report
from dreamcore.training.loop import _Loop, train
from dreamcore.training.metrics_recorder import MetricsRecorder

from ..support.paths import ROOT
from ..support.runs import configuration, small_run

LOOKING = {
    "validation_prompt": "a sks dog", "validation_steps": 2, "num_validation_images": 1, "max_train_steps": 6,
    "validation_num_inference_steps": 1,
}  # fmt: skip


def state(run: Path) -> str:
    assert (run / "report.png").is_file()
    words = collect(run).state
    assert words.split(",")[0] in page(run)
    return words


def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8").replace("&#x27;", "'")


def at_update(number: int, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when an update has been made."""
    note = MetricsRecorder.note

    def noted(self: MetricsRecorder, update: int, *rest: Any) -> None:
        note(self, update, *rest)
        if update == number:
            act()

    monkeypatch.setattr(MetricsRecorder, "note", noted)


def fail(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


def twice() -> None:
    """Ctrl-C, and again."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: None, "finished, 6 of 6 updates done"),
        (lambda: os.kill(os.getpid(), signal.SIGINT), "stopped by SIGINT, 3 of 6 updates done"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "stopped by SIGTERM, 3 of 6 updates done"),
        (twice, "interrupted, 3 of 6 updates done"),
        (fail(RunError("update 3: bad.\nLower it")), "failed (update 3: bad.), 3 of 6 updates done"),
        (fail(ZeroDivisionError("by 0")), "failed (ZeroDivisionError: by 0), 3 of 6 updates done"),
        (fail(SystemExit(3)), "failed (SystemExit: 3), 3 of 6 updates done"),
    ],
    ids=["finished", "Ctrl-C", "SIGTERM", "Ctrl-C twice", "an error", "a defect", "exit"],
)  # fmt: skip
def test_each_end_has_its_report(
    act: Any, words: str, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_update(3, act, monkeypatch)
    config = configuration(tiny_model, photos, tmp_path, **LOOKING)
    if words.startswith(("finished", "stopped")):
        assert train(config).updates == (6 if words.startswith("finished") else 3)
    else:
        with pytest.raises((KeyboardInterrupt, RunError, ZeroDivisionError, SystemExit)):
            train(config)
    assert state(tmp_path) == words
    assert set(collect(tmp_path).samples) >= {0, 2}


def test_after_a_kill_the_last_one_stands(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from dreamcore.training.metrics_recorder import MetricsRecorder
from tests.support.runs import small_run
note = MetricsRecorder.note
def noted(self, update, *rest):
    note(self, update, *rest)
    if update == 5:
        os.kill(os.getpid(), signal.SIGKILL)
MetricsRecorder.note = noted
small_run(*map(__import__("pathlib").Path, sys.argv[1:]), **{LOOKING!r})
"""
    words = [str(tiny_model), str(photos), str(tmp_path)]
    assert subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert "validating, update 4 of 6" in page(tmp_path)
    assert collect(tmp_path).state.startswith("dead (its process is gone without a word")
    assert max(collect(tmp_path).samples) == 4


def test_a_run_that_goes_on_says_so(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run(tiny_model, photos, tmp_path, max_train_steps=2, checkpointing_steps=2)
    monkeypatch.setattr(_Loop, "update", lambda *_: fail(SystemExit("killed"))())
    monkeypatch.setattr(run_report.RunReport, "failed", lambda *_: None)  # SIGKILL leaves no time for it
    with pytest.raises(SystemExit, match="killed"):
        small_run(tiny_model, photos, tmp_path, max_train_steps=4, resume_from_checkpoint="latest")
    assert "training, update 2 of 4" in page(tmp_path)


@pytest.mark.parametrize("error", [RunError("update 3: the loss is nan"), KeyboardInterrupt()])
@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_a_report_that_cannot_be_written_hides_no_error(
    error: BaseException,
    trouble: BaseException,
    tiny_model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act() -> None:
        monkeypatch.setattr(run_report, "write_report", fail_with)
        raise error

    def fail_with(folder: Path) -> None:
        raise trouble

    at_update(3, act, monkeypatch)
    with pytest.raises(type(error)) as raised:
        small_run(tiny_model, photos, tmp_path, **LOOKING)
    assert raised.value is error
    assert "the report could not be written" in (tmp_path / "log.txt").read_text()


def test_a_report_that_cannot_be_written_along_the_way_ends_nothing(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[int]()

    def failing(folder: Path) -> None:
        written.append(len(written))
        if len(written) < 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_report, "write_report", failing)
    run = small_run(tiny_model, photos, tmp_path, **{**LOOKING, "max_train_steps": 2})
    assert run.updates == 2
    assert len(written) == 3, "before training, after it, and at the end"
    said = (tmp_path / "log.txt").read_text()
    assert said.count("the report could not be written: writing the report") == 1, "a warning is said once"
