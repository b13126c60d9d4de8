"""Several processes under paddle.distributed.launch do what one does with the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.weights import read_safetensors
from dreamcore.io.names import OPTIMIZER_FILE
from dreamcore.runs.checkpoint import list_checkpoints, verify
from dreamcore.track.metrics import read_lines

from ..support import needs
from ..support.runs import PRIOR, SMALL, small_run

pytestmark = needs.paddle

SETTINGS: dict[str, Any] = {
    **PRIOR,
    "num_class_images": 4,
    "sample_batch_size": 1,
    "train_text_encoder": True,
    "max_grad_norm": 0.5,
    "gradient_accumulation_steps": 2,
    "checkpointing_steps": 2,
    "seed": 5,
    "device": "cpu",
}


def launch(output: Path, logs: Path, processes: int = 2, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Train with several processes, as a user starts them."""
    flags = [f"--{k}={v}" for k, v in ({**SMALL, **SETTINGS, **settings, "output_dir": output}).items()]
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--nproc_per_node={processes}", f"--log_dir={logs}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLE_")} | {"OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [*command, "dreambooth", "train", *flags],
        env=environment,
        cwd=logs.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.parametrize("shard", ["none", "optimizer"])
def test_two_processes_equal_one(shard: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    place = {"pretrained_model_name_or_path": tiny_model, "instance_data_dir": photos}
    done = launch(tmp_path / "two", tmp_path / "logs", train_batch_size=1, shard=shard, **place)
    said = done.stdout + "".join(f.read_text(errors="replace") for f in sorted(tmp_path.glob("logs/workerlog.*")))
    assert done.returncode == 0, said
    assert said.count("the finished model is in") <= 2, "one process speaks (the launcher repeats it)"
    one = small_run(tiny_model, photos, tmp_path / "one", **SETTINGS | {"train_batch_size": 2})
    two = read_lines(tmp_path / "two" / "metrics.jsonl")
    assert [r["step"] for r in two] == [r["step"] for r in one.metrics] == [1, 2, 3, 4]
    for name in ("loss", "loss_instance", "loss_prior", "grad_norm", "lr"):
        np.testing.assert_allclose([r[name] for r in two], [r[name] for r in one.metrics], rtol=1e-5, err_msg=name)
    assert [verify(f)["update"] for _, f in list_checkpoints(tmp_path / "two")] == [2, 4]
    states = [read_safetensors(tmp_path / w / "checkpoint-2" / OPTIMIZER_FILE) for w in ("one", "two")]
    assert states[0].keys() == states[1].keys(), "whole, whoever kept it"
    most = {name: float(np.abs(value).max()) for name, value in states[0].items()}
    for name, value in states[0].items():
        kind = max(size for other, size in most.items() if other.endswith(name[name.rindex(".") :]))
        nothing = max(1e-5 * most[name], 1e-7 * kind)  # the keys' biases have a gradient of rounding errors alone
        np.testing.assert_allclose(states[1][name], value, 2e-3, nothing, err_msg=name)
    images = [{p.read_bytes() for p in (tmp_path / w / "class_images").glob("*.png")} for w in ("one", "two")]
    assert [len(made) for made in images] == [4, 4], "shared out, each different"
    assert not list((tmp_path / "two").rglob("*env*")), "the launcher's log folder stays outside"


def test_logs_inside_the_run_folder_are_refused(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    place = {"pretrained_model_name_or_path": tiny_model, "instance_data_dir": photos}
    output = tmp_path / "run"
    output.mkdir()
    done = launch(output, output / "log", processes=1, **place)
    said = done.stdout + "".join(f.read_text(errors="replace") for f in output.glob("log/workerlog.*"))
    assert done.returncode != 0
    assert "--log_dir elsewhere" in said


@pytest.mark.parametrize("sizes", [[5], [1, 2, 3], [3, 1, 1]])
def test_buckets_cover_every_gradient_once(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Summing over ranks is doubled by a stand-in for the other rank, in buckets of any size."""
    import paddle

    from dreamcore.adapters.paddle import launch as module

    monkeypatch.setattr(module, "BUCKET_BYTES", 8)
    monkeypatch.setattr(module.dist, "all_reduce", lambda flat: flat.scale_(2.0))
    weights = [paddle.create_parameter([n, 2], "float32") for n in sizes]
    paddle.add_n([(w * (k + 1)).sum() for k, w in enumerate(weights)]).backward()
    module.sum_gradients(weights)
    for k, weight in enumerate(weights):
        np.testing.assert_allclose(weight.grad.numpy(), np.full(weight.shape, 2.0 * (k + 1)))


def test_what_ranks_tell_each_other_passes_the_devices_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by group: all but the sum of the gradients goes from host to host."""
    import paddle

    from dreamcore.adapters.paddle import launch as module

    seen: list[tuple[Any, bool]] = []

    def all_gather(parts: list[Any], mine: Any, group: Any = None) -> None:
        seen.append((group, mine.place.is_cpu_place() and all(p.place.is_cpu_place() for p in parts)))
        for part in parts:
            part.set_value(mine)

    def others(tensor: Any, src: int = 0, group: Any = None) -> None:
        seen.append((group, tensor.place.is_cpu_place()))

    monkeypatch.setattr(module.dist, "all_gather", all_gather)
    monkeypatch.setattr(module.dist, "broadcast", others)
    monkeypatch.setattr(module.dist, "all_reduce", others)
    world = module.PaddleWorld(0, 0, 2, hosts="hosts")
    np.testing.assert_array_equal(world.gather(np.array([0.1, 3.0])), [[0.1, 3.0]] * 2)
    assert world.broadcast("λ") == "λ" and world.broadcast("") == ""
    world.barrier()
    assert seen == [("hosts", True)] * 5
    assert world.asks_every == 1
    weight = paddle.create_parameter([2], "float32")
    weight.sum().backward()
    module.sum_gradients([weight])
    assert seen[5:] == [(None, True)]


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("gpu:0", "nccl")])
def test_the_device_decides_how_gradients_are_summed(
    device: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the launcher, which may have been told gloo; and what joining settles of the device is settled again."""
    from dreamcore.adapters.paddle import launch as module

    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", "gloo")
    done: list[str] = []
    monkeypatch.setattr(module.dist, "init_parallel_env", lambda: done.append(os.environ["PADDLE_DISTRI_BACKEND"]))
    monkeypatch.setattr(module.dist, "new_group", lambda backend: backend)
    monkeypatch.setattr(module.paddle.device, "set_device", done.append)
    world: Any = module.join_world(device)
    assert done == [backend, device]
    assert (world.size, world.hosts) == (2, "gloo")


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamcore.adapters.paddle.launch import choose_device

    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(ConfigError, match="'gpu:0' names one device for all 2 processes"):
        choose_device("gpu:0")


def test_no_library_is_imported_before_the_device_is_chosen() -> None:
    """ppdiffusers tries an attention kernel on whatever device is the default then."""
    code = """
import sys
from dreamcore.adapters.paddle import backend, launch, lora, models
from dreamcore.errors import ConfigError
try:
    launch.choose_device("gpu:7")
except ConfigError as error:
    print(error)
assert not {"ppdiffusers", "paddlenlp"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'gpu:7' cannot be used" in done.stdout
