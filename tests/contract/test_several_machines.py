"""Two machines, as network namespaces of this one, each with folders and a launcher of its own: the same run as one
process, and no waiting for one that has vanished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from dreamcore.backends.installed import installed_backends
from dreamcore.io.names import EMA_FILE
from dreamcore.track.metrics import read_lines

from ..support import needs
from ..support.networks import ADDRESSES, two_networks
from ..support.paths import ROOT
from ..support.runs import PRIOR, SMALL, small_run

pytestmark = [needs.backend, pytest.mark.timeout(600), pytest.mark.usefixtures("every_core")]
BACKEND = installed_backends()[0]
SETTINGS = SMALL | PRIOR | {"use_lora": True, "max_train_steps": 3, "logging_steps": 1, "checkpointing_steps": 2}
ALL = {
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 0.05,
    "use_ema": True,
    "validation_share": 0.3,
    "validation_prompt": "a photo of sks dog in snow",
    "num_validation_images": 2,
    "sample_batch_size": 1,
    "validation_num_inference_steps": 1,
}
WHERE = {
    "instance_data_dir": "photos",
    "class_data_dir": "classes",
    "output_dir": "run",
    "latent_cache_dir": "latents",
}
"""Relative: to each machine's own folder."""
SCRIPT = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from dreamcore.backends import launching, machines
from dreamcore.cli.main import main
machines.SILENCE_SECONDS, launching.GRACE_SECONDS = 3, 3
sys.exit(main())
"""


@dataclass(frozen=True)
class Machine:
    folder: Path
    """Its own, with the photographs."""
    inside: list[str]
    """What runs a command in its network."""


@pytest.fixture
def machines(photos: Path, tmp_path: Path) -> Iterator[list[Machine]]:
    for name in ("first", "second"):
        shutil.copytree(photos, tmp_path / name / "photos")
    script = tmp_path / "dreambooth"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    with two_networks() as networks:
        yield [Machine(tmp_path / name, inside) for name, inside in zip(("first", "second"), networks, strict=True)]


def launch(machines: list[Machine], model: Path, **settings: object) -> list[subprocess.Popen[str]]:
    """The same command on each, but for the machine's number."""
    given = SETTINGS | WHERE | {"pretrained_model_name_or_path": model, "device": "cpu"} | settings
    words = [f"--{name}={value}" for name, value in given.items() if not (BACKEND != "torch" and name == "device")]
    where = ["--nnodes=2", f"--rdzv_endpoint={ADDRESSES[0]}", "--num_processes=1"]
    command = [sys.executable, "../dreambooth", "launch", *where]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [*machine.inside, *command, f"--node_rank={rank}", "--", "train", *words],
            cwd=machine.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, machine in enumerate(machines)
    ]


@pytest.mark.parametrize(
    "use_lora", [pytest.param(True, marks=needs.slow_on_mindspore), pytest.param(False, marks=pytest.mark.slow)]
)
def test_two_without_a_shared_disk_equal_one(
    use_lora: bool, machines: list[Machine], tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    more = ALL | {"use_lora": use_lora}
    started = launch(machines, tiny_model, **more)
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    classes = [{f.name: f.read_bytes() for f in (machine.folder / "classes").glob("0*.png")} for machine in machines]
    assert len(classes[0]) == 3 and classes[0] == classes[1], "each machine makes its own"
    latents = [{f.name: f.read_bytes() for f in (m.folder / "latents").rglob("*.safetensors")} for m in machines]
    assert latents[0] and latents[0] == latents[1], "each keeps what both have encoded"
    assert not list((machines[1].folder / "run").glob("*")), "the first machine alone writes"

    own = {"train_batch_size": 2, "class_data_dir": str(machines[0].folder / "classes")}
    one = small_run(tiny_model, photos, tmp_path / "one", **SETTINGS | more | own)
    run = machines[0].folder / "run"
    for name, keys in (
        ("metrics", ("loss", "loss_instance", "loss_prior", "grad_norm", "lr")),
        ("validation", ("validation_loss",)),
    ):
        alone, two = (read_lines(folder / f"{name}.jsonl") for folder in (one.folder, run))
        assert len(two) == len(alone) >= 2
        for mine, theirs in zip(two, alone, strict=True):
            for key in keys:
                assert mine[key] == pytest.approx(theirs[key], rel=1e-5), key
    for number in range(2):  # made on one machine each
        made, same = (f / "samples" / f"step-000000-{number}.png" for f in (run, one.folder))
        assert made.read_bytes() == same.read_bytes()
    for file in ("lora_factors.safetensors", EMA_FILE) if use_lora else (EMA_FILE,):
        ours, shared = (load_file(folder / "checkpoint-2" / file) for folder in (one.folder, run))
        assert all(shared[name] == pytest.approx(ours[name], abs=1e-6) for name in ours), file


def until_it_trains(machine: Machine, process: subprocess.Popen[str]) -> None:
    metrics = machine.folder / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.05)


@needs.torch
def test_a_signal_to_one_lets_all_save_and_stop(machines: list[Machine], tiny_model: Path) -> None:
    first, second = launch(machines, tiny_model, max_train_steps=2000)
    until_it_trains(machines[0], first)
    second.terminate()
    said = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [143, 143], "\n".join(said)
    last = read_lines(machines[0].folder / "run" / "metrics.jsonl")[-1]["step"]
    assert (machines[0].folder / "run" / f"checkpoint-{last}" / "state.json").is_file(), said[0]


@needs.torch
def test_a_machine_that_vanishes_ends_the_run(machines: list[Machine], tiny_model: Path) -> None:
    """All of its processes are stopped and none ended, so that its connections stay, and nothing comes over them."""
    first, second = launch(machines, tiny_model, max_train_steps=2000)
    until_it_trains(machines[0], first)
    stopped = [psutil.Process(second.pid), *psutil.Process(second.pid).children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        said = first.communicate(timeout=60)[0]
    finally:
        for process in stopped:
            process.kill()
        second.wait()
    assert first.returncode == 1, said
    assert "dreambooth: stopped: machine 1: has not answered for 3 s" in said.splitlines()[-1], said
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(machines[0].folder)], (
        "a process goes on"
    )
