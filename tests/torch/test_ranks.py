"""Several processes with the same global batch are the same run as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.formats.weights import Arrays, read_safetensors
from dreamcore.io.names import EMA_FILE, OPTIMIZER_FILE
from dreamcore.track.metrics import read_lines

from ..support import needs
from ..support.paths import ROOT
from ..support.runs import PRIOR, small_run

pytestmark = needs.torch

LOOKING: dict[str, Any] = {
    "validation_prompt": "a photo of sks dog in snow",
    "validation_steps": 2,
    "num_validation_images": 2,
    "validation_num_inference_steps": 2,
    "validation_share": 0.4,
    "logging_steps": 3,
}
CASES: dict[str, dict[str, Any]] = {
    # Settings of one process; several take their share of its batch or its accumulation.
    "full": {
        "train_batch_size": 4,
        "center_crop": None,
        "random_flip": True,
        "max_grad_norm": 0,
        "train_text_encoder": True,
        "gradient_checkpointing": True,
    },
    "prior, accumulation, clipping": {
        **PRIOR,
        **LOOKING,
        "num_class_images": 5,
        "sample_batch_size": 1,
        "prior_loss_weight": 0.7,
        "train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.05,
        "use_ema": True,
        "checkpointing_steps": 2,
    },
    "lora on both": {
        "train_batch_size": 4,
        "use_lora": True,
        "train_text_encoder": True,
        "learning_rate": 1e-3,
        "diff_output_preservation": True,
        "diff_output_preservation_multiplier": 2.0,
        "class_prompt": "a photo of dog",
    },
    "ema and bf16": {"train_batch_size": 4, "use_ema": True, "mixed_precision": "bf16"},
}
TOLERANCE = {"ema and bf16": 1e-2}
"""bfloat16 keeps eight bits, and a batch's rows round otherwise than each alone."""


def launch(processes: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, photos: Path) -> Path:
    """OUTPUTS/CASE/WORLD: each case with four, two and one process, with four and two that shard, and with two that
    shard all; and runs handed on: from four that shard to two and to one, from one to four and to two that shard, and
    from two that shard all to one."""
    root = tmp_path_factory.mktemp("ranks")
    handed_on = {"train_batch_size": 4, "checkpointing_steps": 2, "checkpoints_total_limit": 1}
    small_run(tiny_model, photos, root / "handed back", **handed_on, max_train_steps=2)
    for world in (4, 2, 1):
        jobs = []
        for name, settings in CASES.items():
            jobs.append({"output": str(root / name / str(world)), "settings": shared(settings, world)})
            if world > 1:
                jobs.append({"output": str(root / name / f"{world} shard"), "settings": sharded(settings, world)})
            if world == 2:
                jobs.append({"output": str(root / name / "2 full"), "settings": sharded(settings, world, "full")})
        more = {"max_train_steps": {4: 2, 2: 4, 1: 6}[world]} | (
            {} if world == 4 else {"resume_from_checkpoint": "latest"}
        )
        way = sharded if world == 4 else shared
        jobs.append({"output": str(root / "handed on"), "settings": way(handed_on, world) | more})
        if world > 1:
            back = {"max_train_steps": {4: 4, 2: 6}[world], "resume_from_checkpoint": "latest"}
            jobs.append({"output": str(root / "handed back"), "settings": sharded(handed_on, world) | back})
        if world < 4:
            over = {2: {"max_train_steps": 2}, 1: {"max_train_steps": 6, "resume_from_checkpoint": "latest"}}[world]
            settings = sharded(handed_on, world, "full" if world == 2 else "none") | over
            jobs.append({"output": str(root / "handed over"), "settings": settings})
        for job in jobs:
            job |= {"model": str(tiny_model), "photos": str(photos)}
        if world == 1:
            for job in jobs:
                small_run(tiny_model, photos, Path(job["output"]), **job["settings"])
            continue
        (root / f"{world}.json").write_text(json.dumps(jobs))
        done = launch(world, ["-m", "tests.support.ranks", str(root / f"{world}.json")])
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("has done all") == world
    small_run(tiny_model, photos, root / "straight", **handed_on, max_train_steps=6)
    return root


def shared(settings: dict[str, Any], world: int) -> dict[str, Any]:
    """Settings of each process; two have the optimizer in the host's memory, and four, where nothing is clipped, update
    while gradients arrive: that too is the same run."""
    more: dict[str, Any] = {"placement": "cpu"} if world == 2 else {}
    if world == 4 and settings.get("max_grad_norm") == 0:
        more = {"fused_backward_pass": True}
    return settings | more | {"train_batch_size": settings["train_batch_size"] // world}


def sharded(settings: dict[str, Any], world: int, what: str = "optimizer") -> dict[str, Any]:
    """Settings of each process, which keeps its share of the optimizer's state, or of all."""
    return settings | {"shard": what, "train_batch_size": settings["train_batch_size"] // world}


def metrics(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / "metrics.jsonl")


@pytest.mark.parametrize("world", ["2", "4", "2 shard", "4 shard", "2 full"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_do_not_depend_on_the_processes(case: str, world: str, outputs: Path) -> None:
    alone, together = metrics(outputs / case / "1"), metrics(outputs / case / world)
    assert [m["step"] for m in together] == [1, 2, 3, 4], "each update is written once"
    names = {"loss", "loss_instance", "grad_norm", "lr"} | ({"loss_prior"} if "prior" in case else set())
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys() >= names
        for name in names:
            assert other[name] == pytest.approx(one[name], rel=TOLERANCE.get(case, 1e-5)), (one["step"], name)


@pytest.mark.parametrize("world", ["2", "4", "2 full"])
def test_class_images_are_shared_out_and_each_is_different(world: str, outputs: Path) -> None:
    alone, together = (outputs / "prior, accumulation, clipping" / w / "class_images" for w in ("1", world))
    pictures = {p.name: p.read_bytes() for p in together.glob("*.png")}
    assert len(set(pictures.values())) == 5
    assert pictures == {p.name: p.read_bytes() for p in alone.glob("*.png")}
    assert (together / "class_images.json").read_bytes() == (alone / "class_images.json").read_bytes()


@pytest.mark.parametrize("world", ["2", "4", "2 full"])
def test_one_process_writes(world: str, outputs: Path) -> None:
    alone, together = (outputs / "prior, accumulation, clipping" / w for w in ("1", world))
    assert files(alone) == files(together)
    log = (together / "log.txt").read_text()
    assert [log.count(f"saved checkpoint-{n}") for n in (2, 4)] == [1, 1]
    assert log.count("run ended: finished") == 1


@pytest.mark.parametrize("world", ["2", "4", "2 shard", "2 full"])
def test_every_process_makes_its_share_of_what_is_looked_at(world: str, outputs: Path) -> None:
    """Pictures, of which four processes have fewer than they are, and the loss on two held-out photographs."""
    alone, together = (outputs / "prior, accumulation, clipping" / w for w in ("1", world))
    for number in range(LOOKING["num_validation_images"]):
        first = [(f / "samples" / f"step-000000-{number}.png").read_bytes() for f in (alone, together)]
        assert first[0] == first[1]
    losses = [read_lines(f / "validation.jsonl") for f in (alone, together)]
    assert [m["step"] for m in losses[1]] == [m["step"] for m in losses[0]] == [0, 2, 4]
    for one, other in zip(*losses, strict=True):
        assert other["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-5)
    assert losses[1][0]["validation_loss"] == losses[0][0]["validation_loss"], "of the model as it came, to the bit"


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if not f.name.startswith("."))


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_each_process_keeps_its_share_of_the_state(case: str, world: int, outputs: Path) -> None:
    whole = sum(value.nbytes for value in state(outputs / case / f"{world} shard", 4).values())
    sizes = held(outputs / case / f"{world} shard")["state"]
    assert len(sizes) == world and sum(sizes) == whole
    assert max(sizes) < 1.05 * whole / world
    assert set(held(outputs / case / "2")["state"]) == {whole}, "unsharded, each keeps all"


def held(run: Path) -> dict[str, list[int]]:
    """Bytes by kind and rank (`support.ranks.held`)."""
    found: dict[str, list[int]] = json.loads(Path(f"{run}.held.json").read_text())
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_process_keeps_its_share_of_all(case: str, outputs: Path) -> None:
    check_shares(case, 2, outputs)


def check_shares(case: str, world: int, outputs: Path) -> None:
    run, lora = outputs / case / f"{world} full", "lora" in case
    found, folder = held(run), run / "checkpoint-4"
    parts = [read_safetensors(file) for file in sorted(folder.glob("*/*.safetensors"))]
    weights = sum(value.size for part in parts for value in part.values()) * 4
    if not lora:
        assert sum(found["weights"]) == weights and sum(found["gradients"]) == weights
        assert max(found["gradients"]) < 1.05 * weights / world
        assert sum(found["state"]) == sum(value.nbytes for value in state(run, 4).values())
    total = sum(found["weights"])
    assert total > 1e6 and max(found["weights"]) < 1.05 * total / world
    assert max(found["gathered"]) < 0.5 * total, "blocks that have had their turn are gone"
    assert found["left"] == [0] * world, "and after a run all of them"


def test_sharded_checkpoints_hold_what_others_do(outputs: Path) -> None:
    folder = outputs / "prior, accumulation, clipping"
    alone = state(folder / "1", 2)
    for world in ("2 shard", "4 shard", "2 full"):
        together = state(folder / world, 2)
        assert alone.keys() == together.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(together[name], value, 2e-3, 1e-6 * float(np.abs(value).max()), err_msg=name)
        average = read_safetensors(folder / world / "checkpoint-4" / EMA_FILE)
        for name, value in read_safetensors(folder / "1" / "checkpoint-4" / EMA_FILE).items():
            np.testing.assert_allclose(average[name], value, 1e-4, 1e-5, err_msg=name)


def state(folder: Path, update: int) -> Arrays:
    return read_safetensors(folder / f"checkpoint-{update}" / OPTIMIZER_FILE)


@pytest.mark.parametrize("way", ["handed on", "handed back", "handed over"])
def test_a_run_goes_on_in_another_number_of_processes(way: str, outputs: Path) -> None:
    straight, handed_on = metrics(outputs / "straight"), metrics(outputs / way)
    assert [m["step"] for m in handed_on] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(straight, handed_on, strict=True):
        for name in ("loss", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-5), (one["step"], name)
