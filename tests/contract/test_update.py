"""The update by itself, on every backend: AdamW against NumPy, clipping, the loss scale, the moving average, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.backends.loss_scale import LossScale
from dreamcore.errors import ConfigError, RunError
from dreamcore.io.names import OPTIMIZER_FILE

from ..support.benches import SHAPES, Values, adamw_by_hand, bench, numbers


def scaled(seed: int, scale: float) -> Values:
    return {name: gradient * np.float32(scale) for name, gradient in numbers(seed).items()}


def assert_close(values: Values, wanted: Values, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert values.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(values[name], value, rtol=rtol, atol=atol, err_msg=name)


def assert_equal(values: Values, wanted: Values) -> None:
    assert_close(values, wanted, 0, 0)


@pytest.mark.parametrize("max_norm", [1.0, 1e9, 0.0])
def test_adamw(max_norm: float) -> None:
    made = bench(max_grad_norm=max_norm)
    start = made.values()
    for k in range(1, 6):
        wanted = np.sqrt(sum((g**2).sum() for g in numbers(k).values()))
        assert made.step(numbers(k)) == pytest.approx(wanted, rel=1e-5)
    for name, value in made.values().items():
        assert np.abs(value - start[name]).min() > 1e-6, f"{name} does not move"
    assert_close(made.values(), adamw_by_hand(5, max_norm))


def test_an_overflow_is_skipped_and_halves_the_scale() -> None:
    made, plain = bench(LossScale(1024.0, growth_interval=2), max_grad_norm=1.0), bench(max_grad_norm=1.0)
    before = made.values()
    for bad in (np.inf, np.nan):
        assert not np.isfinite(made.step(numbers(1) | {"unet.b": np.full(5, bad, np.float32)}))
    assert_equal(made.values(), before)
    assert made.loss_scale() == 256.0
    for k in (1, 2):
        assert made.step(scaled(k, 256)) == pytest.approx(plain.step(numbers(k)), rel=1e-6)
        assert_close(made.values(), plain.values(), rtol=1e-6)
    assert made.loss_scale() == 512.0, "doubled after two updates without overflow"


def test_a_scale_without_clipping_is_taken_off() -> None:
    made = bench(LossScale(64.0), max_grad_norm=0.0)
    made.step(scaled(1, 64))
    assert_close(made.values(), adamw_by_hand(1, 0.0))


def test_the_state_travels(tmp_path: Path) -> None:
    one = bench(LossScale(4.0), max_grad_norm=1.0)
    for k in (1, 2):
        one.step(scaled(k, 4))
    one.optimizer.save(tmp_path)
    assert {name: array.shape for name, array in load_file(tmp_path / OPTIMIZER_FILE).items()} == {
        f"{name}.{moment}": shape for name, shape in SHAPES.items() for moment in ("exp_avg", "exp_avg_sq")
    }
    other = bench(LossScale(), one.values(), max_grad_norm=1.0)
    other.optimizer.load(tmp_path)
    assert other.loss_scale() == 4.0
    for made in (one, other):
        made.step(scaled(3, 4))
    assert_equal(other.values(), one.values())


def test_a_state_before_the_first_update_is_a_start(tmp_path: Path) -> None:
    """As a checkpoint holds whose updates have all overflowed."""
    made, other = bench(), bench()
    made.optimizer.save(tmp_path)
    other.optimizer.load(tmp_path)
    for some in (made, other):
        some.step(numbers(1))
    assert_equal(other.values(), made.values())


@pytest.mark.parametrize(
    ("gone", "counters", "words"),
    [
        ("unet.b.exp_avg", {"optimizer": "adamw", "step": 1}, "missing keys: unet.b.exp_avg"),
        (None, {"optimizer": "sgd", "step": 1}, "holds the state of sgd, .* is adamw.*--reset_optimizer"),
    ],
)
def test_a_state_that_does_not_fit(gone: str | None, counters: dict[str, Any], words: str, tmp_path: Path) -> None:
    made = bench()
    made.step(numbers(1))
    made.optimizer.save(tmp_path)
    file = tmp_path / OPTIMIZER_FILE
    tensors = {name: array for name, array in load_file(file).items() if name != gone}
    save_file(tensors, file, metadata={"format": "pt", "counters": json.dumps(counters)})
    with pytest.raises(RunError if gone else ConfigError, match=words):
        made.optimizer.load(tmp_path)


def test_the_moving_average(tmp_path: Path) -> None:
    made = bench()
    average = made.average(0.15)
    wanted = {name: array.astype(np.float64) for name, array in numbers(0).items()}
    for k, decay in enumerate((0.1, 0.15, 0.15)):  # (1 + n)/(10 + n) up to the decay
        made.step(numbers(k + 1))
        average.update()
        wanted = {name: decay * mean + (1 - decay) * made.values()[name] for name, mean in wanted.items()}
    held = made.values()
    average.save(tmp_path)
    again = made.average(0.15)
    again.load(tmp_path)
    for mean in (average, again):
        with mean.in_place():
            assert_close(made.values(), wanted, atol=1e-7)
            assert all(not np.array_equal(value, held[name]) for name, value in made.values().items())
        assert_equal(made.values(), held)
