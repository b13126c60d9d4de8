"""`dreambooth report`: of runs in every state, and what it never touches."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import dreamcore
from dreamcore.cli.main import main
from dreamcore.errors import ConfigError, RunError
from dreamcore.hub.seal import is_untouched
from dreamcore.io.locks import held
from dreamcore.io.names import MANIFEST, MODEL_CARD, RECORDS, REPORT, REPORT_DATA, REPORT_SHEET, STATUS
from dreamcore.runs.status import Status, now, read_status, this_host

from ..support.stub_runs import contents, manifest, train


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def killed(run: Path) -> None:
    """Make of a finished run one whose process is gone in the middle of it."""
    status = Status(state="training", update=2, total_updates=4, host=this_host(), process=2**22 + 1, written=now())
    status.write(run)
    (run / "model_index.json").unlink()
    content = json.loads((run / REPORT_DATA).read_text())
    (run / REPORT_DATA).write_text(json.dumps(content | {"ended": False}))


def test_a_finished_run(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (run / REPORT).read_text()
    for name in (REPORT, REPORT_SHEET, MODEL_CARD):
        (run / name).unlink()
    monkeypatch.chdir(run.parent)
    assert main(["report", "run"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"run/{REPORT}", f"run/{REPORT_SHEET}", f"run/{MODEL_CARD}"]
    assert "data-until" not in page and "finished, 4 of 4 updates done" in (run / REPORT).read_text()
    assert {REPORT, REPORT_SHEET, MODEL_CARD} <= set(manifest(run)["files"])


def test_a_dead_run_is_said_to_be_dead_and_its_page_comes_to_rest(run: Path) -> None:
    killed(run)
    assert [file.name for file in dreamcore.run_report(run)] == [REPORT, REPORT_SHEET], "no card: there is no model"
    page = (run / REPORT).read_text()
    assert "dead (its process is gone without a word" in page and "update 2 of 4" in page
    assert "data-until" not in page
    assert f"dreambooth train --config {run}/config.yaml --resume_from_checkpoint latest" in page


def test_a_run_at_work_keeps_its_records_to_itself(run: Path) -> None:
    killed(run)
    before = (run / RECORDS / MANIFEST).read_bytes()
    status = read_status(run)
    assert status is not None
    with held(run):
        status.model_copy(update={"process": os.getpid()}).write(run)
        assert [file.name for file in dreamcore.run_report(run.parent)] == [REPORT, REPORT_SHEET], "found below"
        assert "data-until" in (run / REPORT).read_text()
        assert (run / RECORDS / MANIFEST).read_bytes() == before


def test_a_run_of_an_older_version_gets_no_records(run: Path) -> None:
    shutil.rmtree(run / RECORDS)
    for name in (STATUS, REPORT_DATA, MODEL_CARD):
        (run / name).unlink()
    for _ in range(2):
        assert [file.name for file in dreamcore.run_report(run)] == [REPORT, REPORT_SHEET, MODEL_CARD]
    assert not (run / RECORDS).exists() and not list(run.glob("README-*"))
    assert train_again(run) == 4


def train_again(run: Path) -> int:
    """What it takes to be gone on with."""
    return dreamcore.train(str(run / "config.yaml"), output_dir=str(run), resume_from_checkpoint="latest").updates


def test_files_of_others_stay(run: Path) -> None:
    content = manifest(run)
    names = [name for name in content["files"] if name not in (REPORT, MODEL_CARD)]
    (run / RECORDS / MANIFEST).write_text(json.dumps(content | {"files": names}))
    (run / REPORT).write_text("mine")
    with pytest.raises(ConfigError, match=r"report\.html: is there, and no run that is on record"):
        dreamcore.run_report(run)
    (run / REPORT).unlink()
    (run / MODEL_CARD).write_text("# My notes\n")
    assert [file.name for file in dreamcore.run_report(run)] == [REPORT, REPORT_SHEET, "README-2.md"]
    assert (run / MODEL_CARD).read_text() == "# My notes\n"
    assert is_untouched(run / "README-2.md") and "README-2.md" in manifest(run)["files"]
    assert "README-2.md" in (run / REPORT).read_text()


def test_a_card_that_was_edited_stays_as_it_is(run: Path) -> None:
    edited = (run / MODEL_CARD).read_text().replace("## Training", "I like this one.\n\n## Training")
    (run / MODEL_CARD).write_text(edited)
    assert [file.name for file in dreamcore.run_report(run)] == [REPORT, REPORT_SHEET]
    assert (run / MODEL_CARD).read_text() == edited
    assert MODEL_CARD in (run / REPORT).read_text(), "still one of the run's files"


def test_a_card_goes_with_the_run_that_is_replaced(run: Path, stub_model: Path, drawn: Path) -> None:
    train(stub_model, drawn, run, overwrite_output_dir=True, instance_prompt="a zwx fish")
    assert "`a zwx fish`" in (run / MODEL_CARD).read_text() and not list(run.glob("README-*"))


def test_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 2
    assert "error: .: holds no run" in capsys.readouterr().err
    assert main(["report", "none"]) == 2
    assert contents(tmp_path) == {}


def test_a_full_disk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(run)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match="writing the report to .*no space left.*give the command"):
        dreamcore.run_report(run)
    assert contents(run) == before
