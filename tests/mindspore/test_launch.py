"""Two processes that msrun starts: the same run as one with twice the batch, and no waiting for one that has died."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from dreamcore.errors import ConfigError
from dreamcore.track.metrics import read_lines

from ..crossing.cases import reference
from ..support import needs
from ..support.runs import PRIOR, SMALL, small_run

pytestmark = [needs.mindspore, pytest.mark.timeout(600), pytest.mark.usefixtures("every_core")]
BIN = Path(sys.executable).parent
SETTINGS = SMALL | PRIOR | {"use_lora": True, "max_train_steps": 3, "logging_steps": 1, "checkpointing_steps": 2}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def run(start: list[str], settings: dict[str, Any], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run START train, with settings."""
    command = [str(BIN / start[0]), *start[1:]]
    command += ["train", *(f"--{name}={value}" for name, value in settings.items())]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def command_lines() -> list[tuple[int, str]]:
    """Of all processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # ended meanwhile
            found.append((int(file.parent.name), file.read_text(errors="replace")))
    return found


def test_two_processes_equal_one(photos: Path, tmp_path: Path) -> None:
    """Started by `dreambooth launch`."""
    model = reference("models") / "sd1"
    classes = tmp_path / "classes"
    one = small_run(
        model, photos, tmp_path / "one", **SETTINGS | {"train_batch_size": 2, "class_data_dir": str(classes)}
    )
    settings = {
        **SETTINGS,
        "pretrained_model_name_or_path": model,
        "instance_data_dir": photos,
        "output_dir": tmp_path / "two",
        "class_data_dir": classes,
    }
    done = run(["dreambooth", "launch", "--num_processes=2", "--"], settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "update 3/3" in done.stdout, "what the first process says is seen"
    two = read_lines(tmp_path / "two" / "metrics.jsonl")
    assert len(two) == len(one.metrics) == 3
    for mine, theirs in zip(two, one.metrics, strict=True):
        for name in ("loss", "loss_instance", "loss_prior", "grad_norm", "lr"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert {f.name for f in (tmp_path / "two").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    assert "finished" in (tmp_path / "two" / "log.txt").read_text()
    written = [load_file(tmp_path / n / "checkpoint-2" / "lora_factors.safetensors") for n in ("one", "two")]
    for name in written[0]:
        assert written[0][name] == pytest.approx(written[1][name], abs=1e-6), name


def test_a_signal_to_the_launcher_lets_all_save_and_end(photos: Path, tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "max_train_steps": 1000,
        "pretrained_model_name_or_path": reference("models") / "sd1",
        "instance_data_dir": photos,
        "output_dir": tmp_path / "run",
    }
    for name in PRIOR:
        del settings[name]
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = [str(BIN / "dreambooth"), "launch", "--num_processes=2", "--", "train", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    process.terminate()
    said = process.communicate()[0]
    assert process.returncode == 143, said
    last = read_lines(metrics)[-1]["step"]
    assert (tmp_path / "run" / f"checkpoint-{last}" / "state.json").is_file(), said
    assert not [pid for pid, line in command_lines() if str(tmp_path / "run") in line], "a process goes on"


def test_a_worker_that_dies_ends_the_others(photos: Path, tmp_path: Path) -> None:
    """Rank 1 kills itself while it loads its model, when rank 0 has begun to wait for it."""
    dying = tmp_path / "sitecustomize.py"
    dying.write_text(
        "import os, sys\n"
        "def watch(event, args):\n"
        "    if event == 'import' and args[0].startswith('mindone.diffusers.') and os.environ.get('RANK_ID') == '1':\n"
        f"        os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "sys.addaudithook(watch)\n"
    )
    settings = {
        **SETTINGS,
        "pretrained_model_name_or_path": reference("models") / "sd1",
        "instance_data_dir": photos,
        "output_dir": tmp_path / "out",
    }
    start = ["msrun", "--worker_num=2", "--local_worker_num=2", f"--master_port={free_port()}"]
    start += [f"--log_dir={tmp_path / 'logs'}", "--join=True", "python", "-m", "dreambooth"]
    done = run(start, settings, PYTHONPATH=str(tmp_path), MS_NODE_TIMEOUT="10")  # 30 where nothing is said
    assert done.returncode != 0
    assert "exit with exception. Error code: -9" in done.stdout + done.stderr
    assert "a process of this run has ended or does not answer" in done.stdout + done.stderr
    assert not (tmp_path / "out" / "pytorch_lora_weights.safetensors").exists()


def test_a_process_that_none_joins_ends(photos: Path, tmp_path: Path) -> None:
    """One worker of two, without scheduler or fellow: the time limit ends it, and it says where it stood."""
    model = reference("models") / "sd1"
    settings = {**SETTINGS, "pretrained_model_name_or_path": model, "instance_data_dir": photos, "output_dir": tmp_path}
    alone = {"MS_WORKER_NUM": "2", "MS_ROLE": "MS_WORKER", "MS_NODE_ID": "0", "MS_SCHED_HOST": "127.0.0.1"}
    alone |= {"MS_SCHED_PORT": str(free_port()), "RANK_ID": "0", "DREAMBOOTH_JOIN_SECONDS": "2"}
    done = run(["dreambooth"], settings, **alone)
    assert done.returncode == 1
    assert "did not find each other" in done.stderr or "join_world" in done.stderr


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the scheduler, before anything waits; MindSpore would speak of processes that were not spawned."""
    from dreamcore.adapters.mindspore.launch import join_world

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        here = {"MS_WORKER_NUM": "2", "MS_ROLE": "MS_SCHED", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port)}
        for name, value in here.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MS_TOPO_TIMEOUT", "1")  # which joining overwrites
        with pytest.raises(ConfigError, match=f"master_port: port {port} of 127.0.0.1 .*another --master_port"):
            join_world()


@pytest.mark.parametrize(("target", "every"), [("CPU", 1), ("Ascend", 10)])
def test_ranks_on_devices_seldom_ask_each_other(target: str, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """MindSpore has no group of hosts beside HCCL's: every question waits for the devices."""
    from dreamcore.adapters.mindspore import launch as module

    monkeypatch.setenv("MS_WORKER_NUM", "2")
    monkeypatch.setenv("MS_TOPO_TIMEOUT", "1")  # which joining overwrites
    monkeypatch.setattr(module.ms, "get_context", lambda name: target)
    for name, answer in (("init", None), ("get_rank", 1), ("get_group_size", 2)):
        monkeypatch.setattr(module, name, lambda answer=answer: answer)
    world = module.join_world()
    assert (world.rank, world.size, world.asks_every) == (1, 2, every)
