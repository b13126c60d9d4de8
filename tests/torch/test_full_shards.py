"""Four processes that share all out, and one of two that dies: what takes a while (`test_ranks` has the rest)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.formats.tensors import Tensors
from dreamcore.formats.weights import read_safetensors
from dreamcore.io.names import EMA_FILE, OPTIMIZER_FILE

from ..support import needs
from ..support.runs import small_run
from .test_ranks import CASES, TOLERANCE, check_shares, launch, metrics, sharded

pytestmark = [needs.torch, pytest.mark.slow, pytest.mark.timeout(1200)]

HANDED: dict[str, Any] = {"train_batch_size": 4, "use_ema": True, "max_grad_norm": 0.05}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, photos: Path) -> Path:
    """OUTPUTS/CASE/WORLD: each case with one process and with four that share all out; and a run that four begin, and
    that two, of which one dies, two again and one go on with."""
    root = tmp_path_factory.mktemp("full")
    place = {"model": str(tiny_model), "photos": str(photos)}
    for name, settings in CASES.items():
        small_run(tiny_model, photos, root / name / "1", **settings)
    small_run(tiny_model, photos, root / "straight", **HANDED, max_train_steps=8)
    handed = {"output": str(root / "handed"), **place}
    saving = HANDED | {"checkpointing_steps": 1, "resume_from_checkpoint": "latest"}

    def jobs(world: int, *some: dict[str, Any]) -> list[str]:
        (root / f"{world}.json").write_text(json.dumps(some))
        return ["-m", "tests.support.ranks", str(root / f"{world}.json")]

    four = [
        {"output": str(root / name / "4 full"), "settings": sharded(settings, 4, "full"), **place}
        for name, settings in CASES.items()
    ]
    begun = sharded(saving, 4, "full") | {"max_train_steps": 2, "resume_from_checkpoint": None}
    done = launch(4, jobs(4, *four, handed | {"settings": begun}))
    assert done.returncode == 0, done.stdout + done.stderr
    two = sharded(saving, 2, "full")
    died = launch(2, jobs(2, handed | {"settings": two | {"max_train_steps": 8}, "dying_rank": 1}))
    assert died.returncode != 0 and "every checkpoint is from before this" in died.stdout + died.stderr
    done = launch(2, jobs(2, handed | {"settings": two | {"max_train_steps": 6}}))
    assert done.returncode == 0, done.stdout + done.stderr
    small_run(tiny_model, photos, root / "handed", **saving, max_train_steps=8)
    return root


@pytest.mark.parametrize("case", CASES)
def test_four_processes_are_the_same_run(case: str, outputs: Path) -> None:
    alone, together = metrics(outputs / case / "1"), metrics(outputs / case / "4 full")
    for one, other in zip(alone, together, strict=True):
        for name in ("loss", "loss_instance", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=TOLERANCE.get(case, 1e-5)), (one["step"], name)
    check_shares(case, 4, outputs)


def test_a_process_dies_and_the_run_goes_on(outputs: Path) -> None:
    """Begun by four, gone on with by two until one is killed, by two again and by one."""
    straight, handed = metrics(outputs / "straight"), metrics(outputs / "handed")
    assert [m["step"] for m in handed] == [1, 2, 3, 4, 5, 6, 7, 8]
    for one, other in zip(straight, handed, strict=True):
        for name in ("loss", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-5), (one["step"], name)
    averages = [read_safetensors(outputs / run / "checkpoint-8" / EMA_FILE) for run in ("straight", "handed")]
    for name, value in averages[0].items():
        np.testing.assert_allclose(averages[1][name], value, 1e-4, 1e-5, err_msg=name)


def test_their_files_are_those_of_one(outputs: Path) -> None:
    """Names, shapes, types and what files say of themselves: whoever goes on with one's goes on with theirs."""
    folders = [outputs / "prior, accumulation, clipping" / world / "checkpoint-4" for world in ("1", "4 full")]
    files = [sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) for folder in folders]
    assert files[0] == files[1] and {OPTIMIZER_FILE, EMA_FILE} <= set(files[0])
    for name in files[0]:
        if name.endswith(".safetensors"):
            one, other = (Tensors(folder / name) for folder in folders)
            assert (one.shapes, one.dtypes, one.metadata) == (other.shapes, other.dtypes, other.metadata), name
