"""Processes part at a run's end: what one writes is waited for, and who leaves first does not fail the others."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dreamcore.backends.protocol import Solo
from dreamcore.errors import LostRankError, RunError
from dreamcore.training.metrics_recorder import MetricsRecorder

from ..support.stub_runs import manifest, train


@pytest.mark.parametrize("stops", [False, True])
def test_who_has_left_at_the_end_is_not_missed(
    stops: bool, stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report, which is written last, is there when the last barrier fails."""
    met = []

    def barrier(self: Solo) -> None:
        met.append((tmp_path / "report.html").exists() and "data-until" not in (tmp_path / "report.html").read_text())
        if met[-1]:
            raise LostRankError("another process has ended")

    monkeypatch.setattr(Solo, "barrier", barrier)
    if stops:
        note = MetricsRecorder.note

        def interrupted(self: MetricsRecorder, update: int, *rest: object) -> None:
            note(self, update, *rest)  # type: ignore[arg-type]
            if update == 3:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(MetricsRecorder, "note", interrupted)
    run = train(stub_model, drawn, tmp_path)
    assert (run.updates, run.exit_code) == ((3, 143) if stops else (4, 0))
    assert met[-1] and not any(met[:-1])
    assert (manifest(tmp_path)["finished"] is None) == stops


def test_a_last_report_that_fails_is_written_again_without_training(
    stub_model: Path, drawn: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dreamcore.training.run_report.RunReport.ended", fail)
        with pytest.raises(RunError, match="no room"):
            train(stub_model, drawn, tmp_path, checkpoints_total_limit=0)
    capfd.readouterr()
    assert train(stub_model, drawn, tmp_path, checkpoints_total_limit=0, resume_from_checkpoint="latest").updates == 4
    said = capfd.readouterr().err
    assert "the finished model is in" in said and "updates/s" not in said
    assert manifest(tmp_path)["finished"]["updates"] == 4 and not list(tmp_path.glob("checkpoint-*"))


def fail(*_: object) -> None:
    raise RunError("writing the report: no room")
