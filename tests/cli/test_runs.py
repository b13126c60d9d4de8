"""`dreambooth runs`, `stop` and `sample`, beside a run that trains in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dreamcore
from dreamcore.backends import launching
from dreamcore.backends.launchers import Launch
from dreamcore.cli.main import main
from dreamcore.commands import runs as commands
from dreamcore.errors import RunError
from dreamcore.io.names import RECORDS, REQUESTS
from dreamcore.runs.status import Status, now, read_status
from dreamcore.runs.watching import WatchedRun

from ..support import stub_backend
from ..support.fork_server import Command, ForkServer
from ..support.tiny import draw_photos

LONG = 4000
"""Updates, of 10 ms each."""
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run that ends only where it is told to."""
    folder = tmp_path_factory.mktemp("stub")
    model = stub_backend.write_model(folder / "model")
    photos = draw_photos(folder / "photos", count=3, size=64)
    return [
        *("train", f"--model={model}", f"--instance_data_dir={photos}", "--instance_prompt=a sks mug"),
        *(f"--max_train_steps={LONG}", f"--checkpointing_steps={LONG}", f"--validation_steps={LONG}"),
        *("--validation_prompt=a mug", "--num_validation_images=2", "--train_batch_size=1", "--report_to=none"),
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(stub_backend.SECONDS, "0.01")
        with ForkServer(stub=True) as server:
            yield server


@pytest.fixture
def run(words: list[str], server: ForkServer, tmp_path: Path) -> Iterator[tuple[Path, Command]]:
    """One that has made its first updates; it does not outlive the test."""
    folder = tmp_path / "all runs" / "mug"
    command = server.start([*words, f"--output_dir={folder}"], tmp_path / "log")
    try:
        end = time.monotonic() + 60
        while (status := read_status(folder)) is None or status.update == 0:
            assert time.monotonic() < end and not command.ended(), (tmp_path / "log").read_text()
            time.sleep(0.02)
        yield folder, command
    finally:
        if command.code is None:
            command.kill()
            command.wait()


def test_a_run_is_listed_asked_and_stopped(run: tuple[Path, Command], capsys: Said) -> None:
    folder, command = run
    assert main(["runs", str(folder.parents[1])]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"{folder}  training  +\d+/{LONG}  +[\d.]+ updates/s  +\S.* GiB +\d s ago", said)
    assert main(["sample", str(folder)]) == 0
    said = capsys.readouterr()
    files = [Path(line) for line in said.out.splitlines()]
    assert [re.fullmatch(r"step-\d{6,}-(\d)\.png", f.name)[1] for f in files if f.is_file()] == ["0", "1"]  # type: ignore[index]
    assert "it makes them after the update under way (Ctrl-C withdraws the request)" in said.err
    assert [f.name.startswith("asked-") for f in dreamcore.sample(folder.parent, "a mug at sea")] == [True, True]
    assert main(["stop", str(folder.parents[1])]) == 0
    said = capsys.readouterr()
    assert command.wait() == 143
    (seen,) = dreamcore.list_runs(folder.parents[1])
    assert (seen.state, seen.status.checkpoint) == ("stopped", seen.status.update)
    told = (
        f"{folder}: stopped (by dreambooth stop), update {seen.status.update} of {LONG}; go on with dreambooth train "
    )
    assert said.out == f'{told}--config "{folder / "config.yaml"}" --resume_from_checkpoint latest\n'
    assert not (folder / RECORDS / REQUESTS).exists()
    assert main(["stop", str(folder)]) == 0, "it has stopped"
    assert main(["sample", str(folder)]) == 2
    assert "a run makes images while it trains, `dreambooth generate` with a model" in capsys.readouterr().err


def test_a_killed_run_is_seen_as_dead(run: tuple[Path, Command], capsys: Said) -> None:
    folder, command = run
    command.kill()
    assert command.wait() == -signal.SIGKILL
    assert main(["runs", "--json", str(folder)]) == 0
    (seen,) = json.loads(capsys.readouterr().out)
    assert (seen["state"], seen["folder"]) == ("dead", str(folder))
    assert main(["runs", str(folder)]) == 0
    assert "\n    dead: its process is gone without a word, last heard of" in capsys.readouterr().out
    for asked in ("stop", "sample"):
        assert main([asked, str(folder)]) == 2
        assert f"{folder}: dead (its process is gone without a word" in capsys.readouterr().err


def test_a_run_that_does_not_hear_is_not_waited_for_longer(run: tuple[Path, Command], capsys: Said) -> None:
    """A request to stop stands, and one for images is withdrawn."""
    folder, command = run
    signal.pidfd_send_signal(command.process, signal.SIGSTOP)
    assert main(["sample", str(folder), "--timeout", "0"]) == 1
    assert f"{folder}: no images within 0 s; the request is withdrawn" in capsys.readouterr().err
    assert not (folder / RECORDS / REQUESTS).exists()
    assert main(["stop", str(folder), "--timeout=0"]) == 1
    assert f"{folder}: has not stopped within 0 s; the request stands" in capsys.readouterr().err
    signal.pidfd_send_signal(command.process, signal.SIGCONT)
    assert command.wait() == 143
    assert [one.state for one in dreamcore.list_runs(folder)] == ["stopped"]


def test_a_run_that_dies_while_it_is_waited_for(run: tuple[Path, Command], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, command = run
    signal.pidfd_send_signal(command.process, signal.SIGSTOP)
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: command.kill())
    with pytest.raises(RunError, match="dead .its process is gone"):
        dreamcore.stop(folder)
    assert not (folder / RECORDS / REQUESTS).exists()


def watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run at work that answers nothing."""
    (folder / RECORDS).mkdir(parents=True)
    status = Status(state="training", update=3, written=now())
    monkeypatch.setattr(commands, "look_at", lambda place: WatchedRun(place, status) if place == folder else None)


@pytest.mark.parametrize(("asked", "words", "left"), [
    ("stop", "the request stands, and the run stops once it has saved", 1), ("sample", "the request is withdrawn", 0),
])  # fmt: skip
def test_ctrl_c_says_what_becomes_of_the_request(
    asked: str, words: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    watched(tmp_path, monkeypatch)
    monkeypatch.setattr(commands, "_wait", _interrupted)
    assert main([asked, str(tmp_path)]) == 130
    assert words in capsys.readouterr().err
    assert len(list(tmp_path.glob(f"{RECORDS}/{REQUESTS}/*.json"))) == left


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_request_that_is_lost_is_put_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a run that has begun in the folder at that moment, and removed what an earlier one was asked."""
    watched(tmp_path, monkeypatch)
    place, seen = tmp_path / RECORDS / REQUESTS, list[int]()

    def pause(seconds: float) -> None:
        seen.append(len(list(place.glob("*.json"))))
        if len(seen) == 1:
            for file in place.glob("*"):
                file.unlink()
        elif len(seen) == 3:
            (file,) = place.glob("*.json")
            file.with_suffix(".answer.json").write_text('{"files": ["samples/a.png"]}')

    monkeypatch.setattr(commands.time, "sleep", pause)
    assert dreamcore.sample(tmp_path) == [tmp_path / "samples/a.png"]
    assert seen == [1, 1, 1]


@pytest.mark.parametrize(("argv", "words"), [
    (["runs", "nowhere"], "nowhere: no such folder"), (["stop", "nowhere"], "nowhere: no such folder"),
    (["stop"], ".: holds no run, and none that is at work below; `dreambooth runs` lists them"),
    (["sample", "--timeout", "soon"], "--timeout: invalid float value: 'soon'"),
    (["stop", "--prompt", "x"], "unrecognized arguments: --prompt"),
])  # fmt: skip
def test_mistakes_are_said(
    argv: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert words in capsys.readouterr().err
    assert main(["runs"]) == 0
    assert capsys.readouterr().out.startswith("no run here")


def test_a_launcher_takes_a_stop_for_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes end with 0, and the launched command with what a single process would have ended with."""
    program = "from dreamcore.backends.launching import note_stopped; raise SystemExit(note_stopped(143))"
    started = Launch([__import__("sys").executable, "-c", program], {"RANK": "0"})
    monkeypatch.setattr(launching, "launch_command", lambda *_, **__: started)
    assert launching.run_launched("torch", ["train"], processes=1) == 143
    monkeypatch.delenv("RANK", raising=False)
    assert launching.note_stopped(143) == 143
