"""Runs seen from outside: in every state that one can be in, the dead among them, and wherever they lie."""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dreamcore.errors import ConfigError
from dreamcore.io import locks, system
from dreamcore.io.locks import held
from dreamcore.io.names import LOCK, RECORDS
from dreamcore.runs import watching
from dreamcore.runs.status import Status, now, read_status, this_host
from dreamcore.runs.watching import find_runs, look_at

from ..support.stub_backend import StubBackend
from ..support.stub_runs import put_into_state, train

GONE = 2**22 + 1
"""More than Linux numbers processes with."""


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def rewrite(run: Path, **changes: Any) -> Status:
    """Let a run's status say something else."""
    status = read_status(run)
    assert status is not None
    status = status.model_copy(update=changes)
    status.write(run)
    return status


def state(run: Path) -> str:
    found = look_at(run)
    assert found is not None
    return found.state


def test_one_that_is_at_work_is_seen_so(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its own process, which holds the folder."""
    seen: list[Any] = []
    whole = StubBackend.metrics
    monkeypatch.setattr(StubBackend, "metrics", lambda self: seen.append(look_at(tmp_path)) or whole(self))
    train(stub_model, drawn, tmp_path)
    assert [(run.state, run.running) for run in seen] == [("training", True)] * len(seen) and seen
    assert state(tmp_path) == "finished"


def test_one_whose_process_is_gone_is_dead(run: Path) -> None:
    """Whatever it was at when it was killed; its lock's file is left, and a copy of a run at work is such a one too."""
    (run / RECORDS / LOCK).touch()
    for was in ("preparing", "training", "validating", "saving", "stopping"):
        rewrite(run, state=was, process=GONE)
        found = look_at(run)
        assert found is not None and (found.state, found.running) == ("dead", False)
        assert "its process is gone without a word, last heard of 20" in str(found.status.reason)
    for over in ("stopped", "finished", "failed"):
        rewrite(run, state=over)
        assert state(run) == over


def test_one_that_another_process_goes_on_with_is_being_prepared(run: Path) -> None:
    with held(run):
        for was in ("training", "stopped"):
            rewrite(run, state=was, process=GONE)
            assert state(run) == "preparing"
    assert state(run) == "stopped"


def test_where_no_lock_tells_the_process_does(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "is_held", lambda folder: None)
    status = rewrite(run, state="training")
    assert state(run) == "training", "it is this process"
    rewrite(run, process_started=(status.process_started or 0) - 3600)
    assert state(run) == "dead", "another process has its number by now"
    rewrite(run, process=GONE)
    assert state(run) == "dead"


@pytest.mark.parametrize(
    ("age", "within", "seen"),
    [(30, 1, "training"), (90, 1, "silent"), (90, 60, "training"), (300, None, "training"), (1000, None, "silent")],
)
def test_one_on_another_machine_is_silent_after_a_while(age: int, within: float | None, seen: str, run: Path) -> None:
    """Its lock may not be seen from here, and its process is not."""
    written = now() - timedelta(seconds=age)
    rewrite(run, state="training", host="elsewhere", written=written, next_within_seconds=within)
    found = look_at(run)
    assert found is not None and (found.state, found.running) == (seen, True)
    if seen == "silent":
        assert f"on elsewhere, silent since {written:%Y-%m-%d %H:%M:%S}, while training" == found.status.reason
    with held(run):
        assert state(run) == "training", "its lock is seen"


def test_runs_of_earlier_versions_are_seen_by_what_they_left(run: Path) -> None:
    (run / "status.json").unlink()
    found = look_at(run)
    assert found is not None and found.state == "finished"
    assert (found.status.update, found.status.total_updates, found.status.checkpoint) == (4, 4, 4)
    assert (found.status.loss, found.status.host) == (1.0, None)
    put_into_state(run, "stopped")
    shutil.rmtree(run / RECORDS)
    log = run / "log.txt"
    whole = log.read_text()
    for outcome in ("stopped", "failed"):
        log.write_text(whole.replace("run ended: finished", f"run ended: {outcome}"))
        assert state(run) == outcome
    log.write_text(whole.replace("run ended: finished", "saved checkpoint-4\n    and more"))
    assert state(run) == "dead"
    with held(run):
        assert state(run) == "training"
    log.unlink()
    (run / "metrics.jsonl").write_text("")
    assert state(run) == "dead"
    (run / "metrics.jsonl").unlink()
    assert look_at(run) is None


def test_they_are_found_below_folders(finished: Path, tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/c/d", "x/y/z/deep", ".hidden/e", "a/checkpoint-4/f", "n"):
        shutil.copytree(finished, tmp_path / name, dirs_exist_ok=True)
    (tmp_path / "link").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "n" / "status.json").write_text("{")
    rewrite(tmp_path / "b/c", written=now() + timedelta(hours=1))
    rewrite(tmp_path / "b/c/d", state="training")

    def names(*folders: str, **more: int) -> list[str]:
        return [f"{r.folder.relative_to(tmp_path)}" for r in find_runs([tmp_path / f for f in folders], **more)]

    with held(tmp_path / "b/c/d"):
        assert names(".")[:2] == ["b/c/d", "b/c"], "the one at work first, then the latest"
        assert sorted(names(".")) == ["a", "b/c", "b/c/d", "n"]
    assert sorted(names(".", depth=4)) == ["a", "b/c", "b/c/d", "n", "x/y/z/deep"]
    assert names("a", "a", depth=0) == ["a"]
    assert names("link/c", depth=0) == ["link/c"], "a link that is named"
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        find_runs([tmp_path / "nowhere"])


def test_what_is_no_run_is_none(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert look_at(tmp_path) is None
    with held(tmp_path):
        (tmp_path / "metrics.jsonl").unlink()
        assert look_at(tmp_path) is None, "a folder of class images is held too"


def test_looking_keeps_no_run_from_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock that a look takes for an instant is waited for."""
    fcntl = pytest.importorskip("fcntl")
    with held(tmp_path):
        assert locks.is_held(tmp_path) is True
        (tmp_path / RECORDS / "other").touch()  # the folder stays
    assert locks.is_held(tmp_path) is False
    (tmp_path / RECORDS / LOCK).touch()
    with (tmp_path / RECORDS / LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        letting_go = threading.Timer(locks.INSTANT / 4, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        letting_go.start()
        with ExitStack() as stack:
            stack.enter_context(held(tmp_path))
        letting_go.join()


@pytest.mark.parametrize("missing", [True, False])
def test_a_lock_that_cannot_be_told_is_none(missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    (tmp_path / RECORDS).mkdir()
    (tmp_path / RECORDS / LOCK).touch()
    fcntl = pytest.importorskip("fcntl")
    if missing:
        monkeypatch.setitem(__import__("sys").modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", none)
    assert locks.is_held(tmp_path) is None


def test_a_process_is_known_by_when_it_was_started() -> None:
    psutil = pytest.importorskip("psutil")
    own = psutil.Process()
    assert system.process_started(own.pid) == own.create_time()
    assert system.process_started(GONE) is None
    assert system.process_started(-1) is None
    assert this_host()
