"""A process that fails takes the others with it, soon, and what it said comes last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dreamcore.backends.installed import installed_backends

from ..support import needs
from ..support.paths import ROOT
from ..support.runs import SMALL

pytestmark = needs.torch_or_paddle

BACKEND = "torch" if "torch" in installed_backends() else "paddle"
"""MindSpore's launcher has tests of its own."""
LIMIT = 120
"""Seconds in which all must have ended; torch's own limits are ten minutes."""
SCRIPT = f"""#!{sys.executable}
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from dreamcore.backends.installed import RANK_VARIABLES
from dreamcore.cli.main import main
from dreamcore.errors import RunError
from dreamcore.training.metrics_recorder import MetricsRecorder

note = MetricsRecorder.note
rank, update, how = os.environ["FAULT"].split(":")

def failing(self, number, *rest):
    note(self, number, *rest)
    if os.environ.get(RANK_VARIABLES[os.environ["BACKEND"]]) == rank and number == int(update):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "raise":
            raise RunError("this process has had enough")
        open(how, "w").close()

MetricsRecorder.note = failing
sys.exit(main())
"""


def launch(folder: Path, model: Path, photos: Path, fault: str, **settings: Any) -> subprocess.Popen[str]:
    """`dreambooth launch` of two processes, of which one comes to grief as `fault` (RANK:UPDATE:HOW) says."""
    script = folder / "dreambooth"
    script.write_text(SCRIPT)
    script.chmod(0o755)  # Paddle's launcher starts it as it is
    words = [f"--{k}={v}" for k, v in {**SMALL, "max_train_steps": 2000, "device": "cpu", **settings}.items()]
    where = ["--pretrained_model_name_or_path", str(model), "--instance_data_dir", str(photos)]
    command = [sys.executable, str(script), "launch", "--num_processes", "2", "--", "train", *where, *words]
    environment = os.environ | {"FAULT": fault, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "BACKEND": BACKEND}
    return subprocess.Popen(
        [*command, "--output_dir", str(folder / "run")],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, all that was said, and its last line."""
    try:
        said, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.terminate()
        pytest.fail(f"did not end within {LIMIT} seconds: {process.communicate()[0]}")
    return process.returncode, said, said.strip().splitlines()[-1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process(rank: int, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    code, said, last = ended(launch(tmp_path, tiny_model, photos, f"{rank}:3:kill", checkpointing_steps=2))
    assert code == 1, said
    assert last.startswith(f"dreambooth: stopped: process {rank} ended without a word"), said
    if BACKEND == "torch":  # Paddle's launcher may end the others before they can speak
        assert "another process of this run has ended" in said
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_a_process_that_fails_alone(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    code, said, last = ended(launch(tmp_path, tiny_model, photos, "1:3:raise"))
    assert (code, last) == (1, "dreambooth: stopped: process 1: this process has had enough"), said


def test_a_main_process_that_refuses_before_the_others_have_come(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model_index.json").touch()  # of which there is no record
    code, said, last = ended(launch(tmp_path, tiny_model, photos, "0:0:none"))
    assert code == 2, said
    assert last.startswith("dreambooth: error: process 0: output_dir: "), said
    assert "holds model_index.json, where this run would write" in last


def test_a_signal_reaches_all_and_the_work_is_saved(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    process = launch(tmp_path, tiny_model, photos, f"0:3:{started}", logging_steps=1)
    limit = time.monotonic() + LIMIT
    while not started.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    code, said, _ = ended(process)
    assert code == 128 + signal.SIGTERM, said
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert f"stopped after update {checkpoint.name.removeprefix('checkpoint-')} of 2000" in said
