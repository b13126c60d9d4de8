"""The optimizers on every backend: their first updates as the rule's over NumPy's arrays, breaks leave no trace."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.loss_scale import LossScale
from dreamcore.backends.optimizers import saved_shapes, state_bytes
from dreamcore.io.names import OPTIMIZER_FILE

from ..support.benches import SHAPES, Bench, bench
from ..support.runs import configuration, small_run
from ..support.runs import numbers as metrics
from ..support.trajectories import CASES, UPDATES, InNumPy, gradients, rates, settings_of
from .test_update import assert_close, assert_equal

ONE_OF_EACH = list({case["optimizer"]: case for case in reversed(CASES)}.values())
HERE = CASES if installed_backends()[0] == "torch" else ONE_OF_EACH
"""What settings change is the rule's business, whose arithmetic is the same everywhere."""


def go(made: Bench | InNumPy, case: dict[str, Any], first: int, last: int) -> None:
    for update in range(first, last):
        made.step(gradients(update), rates(case, update))


@pytest.mark.parametrize("case", HERE, ids=str)
def test_the_first_updates(case: dict[str, Any]) -> None:
    made, wanted = bench(**settings_of(case)), InNumPy(case)
    start = made.values()
    for some in (made, wanted):
        go(some, case, 0, UPDATES)
    assert_close(made.values(), wanted.values())
    assert all(not np.array_equal(value, start[name]) for name, value in made.values().items())
    with made.optimizer.judged(), wanted.judged():
        assert_close(made.values(), wanted.values())


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case["optimizer"])
def test_the_state_travels(case: dict[str, Any], tmp_path: Path) -> None:
    one = bench(**settings_of(case))
    go(one, case, 0, 6)
    one.optimizer.save(tmp_path)
    state = load_file(tmp_path / OPTIMIZER_FILE)
    assert {name: array.shape for name, array in state.items()} == saved_shapes(one.optimizer.rule, SHAPES)
    plain = InNumPy(case)
    go(plain, case, 0, 6)
    assert_close(state, plain.state())
    config = configuration(Path("model"), Path("photos"), Path("out"), **settings_of(case))
    kept = sum(array.nbytes for name, array in state.items() if not name.endswith(".y"))
    assert kept == state_bytes(config, SHAPES), "what the plan of memory counts"
    with one.optimizer.judged():
        published = one.values()
    other = bench(None, published, **settings_of(case))
    other.optimizer.load(tmp_path)
    assert_equal(other.values(), one.values())
    for made in (one, other):
        go(made, case, 6, 9)
    assert_equal(other.values(), one.values())


@pytest.mark.parametrize("name", ["prodigy", "adamw_schedulefree", "adafactor"])
def test_an_overflow_leaves_no_trace(name: str) -> None:
    """Of those that count their updates."""
    case = next(case for case in CASES if case["optimizer"] == name)
    made, plain = bench(LossScale(2.0), **settings_of(case)), bench(**settings_of(case))
    for update in range(6):
        if update == 3:
            made.step({n: np.full_like(g, np.inf) for n, g in gradients(update).items()}, rates(case, update))
        scale = made.loss_scale()
        made.step({n: g * np.float32(scale) for n, g in gradients(update).items()}, rates(case, update))
        plain.step(gradients(update), rates(case, update))
    assert_close(made.values(), plain.values())


RUNS: dict[str, dict[str, Any]] = {
    "adamw_schedulefree": {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 2},
    "prodigy": {"learning_rate": None, "use_lora": True, "rank": 2, "prodigy_d0": 1e-3},
}


ELSEWHERE_SLOW = [] if installed_backends()[0] == "torch" else [pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=ELSEWHERE_SLOW) for name in RUNS])
def test_a_break_leaves_no_trace(name: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = RUNS[name] | {"optimizer": name, "checkpointing_steps": 3, "max_train_steps": 5}
    whole = small_run(tiny_model, photos, tmp_path / "whole", **settings)
    broken = tmp_path / "broken" / whole.folder.name
    shutil.copytree(whole.folder, broken)
    shutil.rmtree(broken / "checkpoint-5")
    for file in ("model_index.json", "pytorch_lora_weights.safetensors"):
        (broken / file).unlink(missing_ok=True)
    resumed = small_run(tiny_model, photos, broken, **settings, resume_from_checkpoint="latest")
    assert metrics(resumed) == metrics(whole)
    for file in (whole.folder / "checkpoint-5").rglob("*.safetensors"):
        assert_equal(load_file(file), load_file(resumed.folder / file.relative_to(whole.folder)))
    if name == "prodigy":
        effective = [record["lr_effective"] for record in metrics(whole)]
        assert metrics(whole)[0]["lr"] == 1.0 and effective == sorted(effective) and effective[-1] > 1e-3
    else:
        file = Path("unet") / "diffusion_pytorch_model.safetensors"
        final, kept = load_file(whole.folder / file), load_file(whole.folder / "checkpoint-5" / file)
        assert_equal(final, kept)
        state = load_file(whole.folder / "checkpoint-5" / OPTIMIZER_FILE)
        for key, weight in final.items():
            y, z = (state[f"unet.{key}.{slot}"] for slot in ("y", "z"))
            np.testing.assert_allclose(weight, y + (z - y) * (1 - 1 / 0.9), rtol=1e-5, atol=1e-7)
        assert any(not np.array_equal(weight, state[f"unet.{key}.y"]) for key, weight in final.items())
