"""What a run says of itself in status.json while it lasts, and that it never ends a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamcore.errors import RunError
from dreamcore.runs import status as status_module
from dreamcore.runs.status import Status, read_status
from dreamcore.track.metrics import read_lines
from dreamcore.training import run_report

from ..support.stub_backend import StubBackend
from ..support.stub_runs import train


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than all the rest of such a run."""
    monkeypatch.setattr(run_report, "write_report", lambda folder: None)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Of each status that is written: the state, the update, and how many lines the metrics have by then."""
    found: list[tuple[str, int, int]] = []
    whole = Status.write

    def write(self: Status, folder: Path) -> None:
        whole(self, folder)
        read = read_status(folder)
        assert read == self
        found.append((self.state, self.update, len(read_lines(folder / "metrics.jsonl"))))

    monkeypatch.setattr(Status, "write", write)
    return found


def test_it_follows_the_run(
    stub_model: Path, drawn: Path, tmp_path: Path, said: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StubBackend, "peak_memory", lambda self: 7 << 30)
    run = train(stub_model, drawn, tmp_path / "out", logging_steps=1, max_train_steps=3, hub_token="hf_secret")
    steps = [one for number, one in enumerate(said) if one[0] != (said[number - 1][0] if number else "")]
    assert [state for state, _, _ in steps] == [
        *("preparing", "training", "validating", "training"),
        *("saving", "training", "validating", "training", "saving", "training", "validating", "training"),
        *("saving", "training", "finished"),
    ]
    for update in (1, 2, 3):
        assert ("training", update, update) in said, "at each flush, with the metrics that it tells of"
    status = read_status(run.folder)
    assert status is not None
    assert (status.state, status.update, status.total_updates, status.checkpoint) == ("finished", 3, 3, 3)
    assert status.pictures == ["samples/step-000003-0.png", "samples/step-000003-1.png"]
    assert all((run.folder / name).is_file() for name in status.pictures)
    assert (status.pictures_update, status.loss, status.memory_bytes) == (3, 1.0, 7 << 30)
    assert status.updates_per_second == pytest.approx(3 / sum(r["seconds"] for r in run.metrics))
    assert (status.backend, status.device, status.processes) == ("stub", "no device", 1)
    text = (run.folder / "status.json").read_text()
    assert not [word for word in ("mug", "hf_secret", str(drawn)) if word in text], "nothing private"


def test_a_run_that_goes_on_starts_where_it_is(
    stub_model: Path, drawn: Path, tmp_path: Path, said: list[tuple[str, int, int]]
) -> None:
    train(stub_model, drawn, tmp_path / "out")
    said.clear()
    train(stub_model, drawn, tmp_path / "out", max_train_steps=6, resume_from_checkpoint="latest")
    assert said[0] == ("preparing", 4, 4)
    assert {update for _, update, _ in said} == {4, 6}


@pytest.mark.parametrize(
    ("where", "error", "reason"),
    [
        ("train_step", RunError("bad.\nLower it"), "bad."),
        ("train_step", ZeroDivisionError("by 0"), "ZeroDivisionError: by 0"),
        ("train_step", KeyboardInterrupt(), "interrupted"),
        ("set_prompts", RunError("no room"), "no room"),
        ("train_step", MemoryError("bad alloc"), "out of memory of the host while training (bad alloc)"),
    ],
)
def test_a_failure_is_said_in_words(
    where: str,
    error: BaseException,
    reason: str,
    stub_model: Path,
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(StubBackend, where, fail)
    with pytest.raises((RunError, ZeroDivisionError, KeyboardInterrupt)):
        train(stub_model, drawn, tmp_path / "out")
    status = read_status(tmp_path / "out")
    assert status is not None and status.state == "failed"
    assert status.reason is not None and status.reason.startswith(reason)


def test_one_that_cannot_be_written_ends_nothing(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(status_module, "write_atomically", full)
    run = train(stub_model, drawn, tmp_path / "out")
    assert run.updates == 4 and not (run.folder / "status.json").exists()
    said = (run.folder / "log.txt").read_text()
    assert said.count("status.json cannot be written: no space left on the disk") == 1


def test_what_runs_before_have_said_is_replaced_with_them(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        run = train(stub_model, drawn, tmp_path / "out", seed=seed, overwrite_output_dir=seed == 2)
    assert not list(run.folder.glob(".dreambooth/replaced-*"))
    assert "status.json" in json.loads((run.folder / ".dreambooth/manifest.json").read_text())["files"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2, "state": "training"}', '{"state": "x"}', "\xff"])
def test_a_damaged_one_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text, encoding="latin-1")
    assert read_status(tmp_path) is None
