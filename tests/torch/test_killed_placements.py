"""Runs killed with SIGKILL under each placement and gone on with: they end as one plain run does, to the bit.

That float32 updates are the same wherever weights lie is `test_placement`'s; here weights, originals and the
optimizer's state come back from a checkpoint to where they lie, after deaths at any time and before changes of files.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from dreamcore.runs.checkpoint import list_checkpoints

from ..support import needs
from ..support.fork_server import ForkServer
from ..support.interrupted_runs import Case, assert_nothing_half_written, records, results
from ..support.tiny import draw_photos

pytestmark = [needs.torch, pytest.mark.timeout(600)]

UPDATES = 5
METHODS = {
    "full": ["--max_grad_norm=0", "--use_ema"],
    "lora": ["--use_lora", "--rank=2", "--gradient_checkpointing", "--gradient_accumulation_steps=2"],
}
ALL_AT_ONCE = {
    "full": ["--placement=cpu", "--offload_optim_frac=0.4", "--fused_backward_pass"],
    "lora": ["--placement=cpu", "--blocks_to_swap=9"],
}
ONE_BY_ONE = {
    "full": [["--placement=cpu"], ["--placement=cpu", "--offload_optim_frac=0.4"], ["--fused_backward_pass"]],
    "lora": [["--placement=cpu"], ["--placement=auto"], ["--blocks_to_swap=9"]],
}


@pytest.fixture(scope="module", params=METHODS)
def plain(
    request: pytest.FixtureRequest, fork_server: ForkServer, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """A run that nothing disturbs, everything on the device, in FOLDER/METHOD."""
    folder = tmp_path_factory.mktemp("placements")
    draw_photos(folder / "photos", count=2)
    settings = {
        "pretrained_model_name_or_path": tiny_model,
        "instance_data_dir": folder / "photos",
        "instance_prompt": "a photo of sks dog",
        "train_batch_size": 1,
        "learning_rate": 1e-3,
        "max_train_steps": UPDATES,
        "checkpointing_steps": 2,
        "report_to": "none",
        "device": "cpu",
    }
    case = Case(["train", *(f"--{k}={v}" for k, v in settings.items()), *METHODS[request.param]], fork_server, folder)
    started = time.monotonic()
    assert case.start(folder / request.param).wait() == 0, case.log(folder / request.param).read_text()
    case.seconds = time.monotonic() - started
    case.changes = int(case.log(folder / request.param).read_text().rsplit(": ", 1)[1])
    return case


def die(case: Case, output: Path, placing: list[str], draw: random.Random, *, at_a_time: bool) -> None:
    """Begin or go on with a run that is killed at a time, or before a change of the file system that is late enough for
    the first death to leave a checkpoint."""
    if at_a_time:
        command = case.start(output, *placing)
        time.sleep(draw.uniform(0.2, 0.8) * case.seconds)
        command.kill()
    else:
        command = case.start(output, *placing, die_at=draw.randint(case.changes // 2, case.changes - 10))
    assert command.wait() in (0, -9), case.log(output).read_text()
    assert_nothing_half_written(output)


def ends_as_plain(case: Case, method: str, output: Path, placing: list[str]) -> None:
    assert list_checkpoints(output)
    assert case.start(output, *placing).wait() == 0, case.log(output).read_text()
    assert records(output / "metrics.jsonl") == records(case.folder / method / "metrics.jsonl"), placing
    assert results(output) == results(case.folder / method), placing


def method_of(case: Case) -> str:
    return next(name for name in METHODS if (case.folder / name).exists())


def test_a_killed_run_ends_as_a_plain_one(plain: Case) -> None:
    method = method_of(plain)
    output, placing = plain.folder / "placed", ALL_AT_ONCE[method]
    die(plain, output, placing, random.Random(20), at_a_time=False)
    ends_as_plain(plain, method, output, placing)


@pytest.mark.slow
def test_under_each_placement_and_killed_twice(plain: Case) -> None:
    draw, method = random.Random(21), method_of(plain)
    for number, placing in enumerate(ONE_BY_ONE[method]):
        output = plain.folder / f"placed-{number}"
        for at_a_time in (False, True):
            die(plain, output, placing, draw, at_a_time=at_a_time)
        ends_as_plain(plain, method, output, placing)
