"""`dreambooth launch` builds its backend's own launcher's command; whoever fails first is heard last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamcore.backends import launching
from dreamcore.backends.launchers import launch_command, processes_asked_for
from dreamcore.backends.machines import Machines
from dreamcore.cli.main import main
from dreamcore.errors import ConfigError, LostRankError, RunError

from ..support import needs
from ..support.paths import ROOT

TRAIN = ["train", "--model", "m", "--instance_data_dir", "p", "--instance_prompt", "a sks dog"]


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "bin" / "dreambooth"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setattr(sys, "argv", [str(file), "launch"])
    return file


@pytest.mark.parametrize("backend", ["torch", "paddle", "mindspore"])
def test_commands(backend: str, script: Path) -> None:
    on_two = launch_command(backend, ["train", "--x"], processes_asked_for(["2", "5"], None, Path("/logs")))
    on_cpu = launch_command(backend, ["train"], processes_asked_for([], 3, Path("/logs")))
    assert on_two.command[-3:] == [str(script), "train", "--x"]
    assert on_cpu.command[-2:] == [str(script), "train"]
    bin_folder = Path(sys.executable).parent
    starts = {
        "torch": [sys.executable, "-m", "torch.distributed.run", "--standalone"],
        "paddle": [sys.executable, "-m", "paddle.distributed.launch", "--log_dir=/logs"],
        "mindspore": [str(bin_folder / "msrun")],
    }
    assert on_two.command[: len(starts[backend])] == starts[backend]
    if backend == "torch":
        assert on_two.environment == {"CUDA_VISIBLE_DEVICES": "2,5"}
        assert "--nproc-per-node=2" in on_two.command
        assert "--nproc-per-node=3" in on_cpu.command
        assert on_cpu.environment == {}
    elif backend == "paddle":
        assert "--devices=2,5" in on_two.command
        assert "--nproc_per_node=3" in on_cpu.command
        words = (*on_two.command, *on_cpu.command)
        assert not [word for word in words if word.startswith("--backend")], "gloo would leave GPUs alone"
    else:
        assert {"--worker_num=2", "--local_worker_num=2", "--log_dir=/logs", "--join=True"} <= set(on_two.command)
        assert on_two.environment["ASCEND_RT_VISIBLE_DEVICES"] == "2,5"
        assert on_two.environment["PATH"].startswith(str(bin_folder))


@pytest.mark.parametrize(
    ("backend", "flags"),
    [
        ("torch", "--nnodes=3 --node-rank=1 --master-addr=10.0.0.1 --master-port=29400 --nproc-per-node=2"),
        ("paddle", "--master=10.0.0.1:29400 --nnodes=3 --rank=1 --devices=2,5"),
        ("mindspore", "--worker_num=6 --local_worker_num=2 --master_addr=10.0.0.1 --master_port=29400 --node_rank=1"),
    ],
)
def test_commands_of_one_of_several_machines(backend: str, flags: str, script: Path) -> None:
    asked = processes_asked_for(["2", "5"], None, Path("/logs"), Machines(3, 1, "10.0.0.1", 29400))
    command = launch_command(backend, ["train"], asked).command
    assert set(flags.split()) <= set(command)
    assert asked.ranks == range(2, 4)


def test_the_documents_wait_for_what_they_start() -> None:
    """msrun alone returns at once, with 0."""
    page = ROOT / "docs" / "ascend-paddle.md"
    (line,) = (line for line in page.read_text("utf-8").splitlines() if line.lstrip().startswith("msrun "))
    assert "--join=True" in line


@needs.torch
def test_a_dry_run_prints_a_line_for_a_shell(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--devices", "0,1", "--backend", "torch", "--dry-run", "--", *TRAIN]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("CUDA_VISIBLE_DEVICES=0,1 ")
    assert printed.endswith(
        f"{script} train --model m --instance_data_dir p --instance_prompt 'a sks dog' --backend torch\n"
    )


@pytest.mark.parametrize(
    ("own", "train", "words"),
    [
        ([], TRAIN, "say on which devices (--devices 0,1) or in how many processes"),
        (["--devices", "0,1"], [], "expected `-- train`"),
        (["--devices", "0,1"], ["generate"], "expected `-- train`"),
        (["--devices", "0,1"], [*TRAIN, "--rnak", "4"], "did you mean rank?"),
        (["--devices", "0,1"], [*TRAIN, "--rank", "0"], "rank: "),
        (["--devices", "0,cuda:1"], TRAIN, "'cuda:1' is no device number"),
        (["--devices", "1,1"], TRAIN, "names a device twice"),
        (["--devices", "0,1", "--num_processes", "3"], TRAIN, "num_processes: 3 for 2 devices"),
        (["--num_processes", "0"], TRAIN, "num_processes: 0"),
        (["--devices", "0,1"], [*TRAIN, "--device", "cpu"], "give --num_processes in their place"),
        (["--devices", "0", "--backend", "torch"], [*TRAIN, "--backend", "paddle"], "give it once"),
        (["--devices", "0", "--nnodes", "1:4"], TRAIN, "nnodes: '1:4' is no number of machines"),
        (["--devices", "0", "--nnodes", "2", "--rdzv_endpoint", "a"], TRAIN, "node_rank: is missing"),
        (["--devices", "0", "--nnodes", "2", "--node_rank", "2"], TRAIN, "node_rank: 2 of 2; expected 0 on the first"),
        (["--devices", "0", "--nnodes", "2", "--node_rank", "1"], TRAIN, "rdzv_endpoint: is missing"),
        (
            ["--devices", "0", "--nnodes", "2", "--node_rank", "1", "--rdzv_endpoint", "a:b"],
            TRAIN,
            "expected HOST:PORT",
        ),
        (["--devices", "0", "--node_rank", "1"], TRAIN, "nnodes: is missing"),
    ],
)
@needs.torch
def test_mistakes_are_said_once(
    own: list[str], train: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", "--dry_run", *own, "--", *train]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_backend_without_a_launcher_is_named() -> None:
    with pytest.raises(ConfigError, match="the launcher of backend 'other' is not known"):
        launch_command("other", [], processes_asked_for([], 2, Path()))


def notes_of(*errors: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What processes 0, 1 ... leave behind, in this order of time."""
    monkeypatch.setenv(launching.NOTES, str(folder))
    for rank, error in enumerate(errors):
        monkeypatch.setenv("RANK", str(rank))
        launching.note_failure(error)
    return launching._read_notes(folder)


def test_the_first_cause_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (LostRankError("gone"), ConfigError("rank: 0"), RunError("later"))
    notes = notes_of(*errors, folder=tmp_path, monkeypatch=monkeypatch)
    error = launching._first_failure(notes, range(3), stopped=False)
    assert isinstance(error, ConfigError)
    assert str(error) == "process 1: rank: 0"


def test_an_unforeseen_error_is_named_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = notes_of(KeyError("x"), folder=tmp_path, monkeypatch=monkeypatch)
    assert str(launching._first_failure(notes, range(2), stopped=False)) == "process 0: KeyError: 'x'"


def test_who_said_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = notes_of(LostRankError("gone"), LostRankError("gone"), folder=tmp_path, monkeypatch=monkeypatch)
    assert "process 2, 3 ended without a word" in str(launching._first_failure(notes, range(4), stopped=False))
    assert launching._first_failure(notes, range(4), stopped=True) is None
    assert "a process ended without a word" in str(launching._first_failure([], range(4), stopped=False))


@needs.torch
def test_torchrun_reads_the_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    launching.note_failure(RunError("no space left"))
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(tmp_path / "error.json"))
    assert failure.message == "no space left"
    assert failure.timestamp == json.loads((tmp_path / "error.json").read_text())["timestamp"] > 0


@pytest.mark.parametrize(("processes", "ended"), [(2, 3), (1, -signal.SIGABRT)])
def test_one_of_several_paddle_processes_runs_no_destructor(processes: int, ended: int) -> None:
    program = """
import atexit, os
from dreamcore.backends.launching import leave
atexit.register(os.abort)
print("said")
leave(3)
"""
    environment = os.environ | {"PADDLE_TRAINERS_NUM": str(processes)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == ended
    assert processes == 1 or done.stdout == "said\n"
