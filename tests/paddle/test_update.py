"""The update by itself: AdamW against NumPy, clipping, the loss scale, the moving average, and the files of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError, RunError
from dreamcore.lossscale import LossScale

from .. import needs
from ..contract.runs import configuration

pytestmark = needs.paddle
SHAPES = {"unet.a.weight": (3, 4), "unet.b": (5,), "text_encoder.c": (2, 2)}
"""As published; the first is a Linear weight, which Paddle keeps turned."""
LR = {"unet": 1e-2, "text_encoder": 3e-3}


def config_for(**settings: Any) -> TrainConfig:
    return configuration(Path("model"), Path("photos"), Path("out"), **settings)


def numbers(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def make(scale: Any = None, **settings: Any) -> Any:
    import paddle

    from dreamcore.adapters.paddle.models import put
    from dreamcore.adapters.paddle.optim import Optimizer

    weights = {}
    for name, array in numbers(0).items():
        shape = array.shape[::-1] if name.endswith("weight") else array.shape
        weights[name] = paddle.create_parameter(list(shape), "float32")
        put(name, weights[name], array)
    parts = {c: {n: p for n, p in weights.items() if n.startswith(c)} for c in LR}
    return Optimizer(parts, config_for(**settings), scale), weights


def step(optimizer: Any, gradients: dict[str, np.ndarray]) -> float:
    import paddle

    from dreamcore.weights import swap_layout

    for name, weight in optimizer.named.items():
        gradient = np.asarray(swap_layout(name, gradients[name]), order="C")
        (weight * paddle.to_tensor(gradient)).sum().backward()
    return float(optimizer.step(LR))


def values(weights: dict[str, Any]) -> dict[str, np.ndarray]:
    from dreamcore.adapters.paddle.models import published

    return {name: published(name, weight).copy() for name, weight in weights.items()}


def by_hand(updates: int, max_norm: float, decay: float = 1e-2) -> dict[str, np.ndarray]:
    """AdamW as in arXiv 1711.05101, algorithm 2, with torch's order of operations, in float64."""
    weights = {n: a.astype(np.float64) for n, a in numbers(0).items()}
    first = {n: np.zeros_like(a) for n, a in weights.items()}
    second = {n: np.zeros_like(a) for n, a in weights.items()}
    for k in range(1, updates + 1):
        gradients = numbers(k)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
        for n, w in weights.items():
            g = gradients[n] * (min(1.0, max_norm / (norm + 1e-6)) if max_norm else 1.0)
            lr = LR[n.partition(".")[0]]
            w *= 1 - lr * decay
            first[n] = 0.9 * first[n] + 0.1 * g
            second[n] = 0.999 * second[n] + 0.001 * g**2
            w -= lr * (first[n] / (1 - 0.9**k)) / (np.sqrt(second[n] / (1 - 0.999**k)) + 1e-8)
    return weights


@pytest.mark.parametrize("max_norm", [1.0, 1e9, 0.0])
def test_adamw(max_norm: float) -> None:
    optimizer, weights = make(max_grad_norm=max_norm)
    start = values(weights)
    for k in range(1, 6):
        gradients = numbers(k)
        norm = step(optimizer, gradients)
        assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in gradients.values())), rel=1e-5)
    for name, wanted in by_hand(5, max_norm).items():
        assert np.abs(values(weights)[name] - start[name]).min() > 1e-4, f"{name} does not move"
        np.testing.assert_allclose(values(weights)[name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_overflow_is_skipped_and_halves_the_scale() -> None:
    optimizer, weights = make(LossScale(scale=1024.0, growth_interval=2), max_grad_norm=1.0)
    plain, same = make(max_grad_norm=1.0)
    before = values(weights)
    assert not np.isfinite(step(optimizer, numbers(1) | {"unet.b": np.full(5, np.inf, np.float32)}))
    assert not np.isfinite(step(optimizer, numbers(1) | {"unet.b": np.full(5, np.nan, np.float32)}))
    for name, value in values(weights).items():
        np.testing.assert_array_equal(value, before[name])
    assert optimizer.scale.scale == 256.0
    for k in (1, 2):
        scaled = {n: g * 256 for n, g in numbers(k).items()}
        assert step(optimizer, scaled) == pytest.approx(step(plain, numbers(k)), rel=1e-6)
        for name, value in values(weights).items():
            np.testing.assert_allclose(value, values(same)[name], rtol=1e-6)
    assert optimizer.scale.scale == 512.0, "doubled after two updates without overflow"


def test_a_scale_without_clipping_is_taken_off() -> None:
    optimizer, weights = make(LossScale(scale=64.0), max_grad_norm=0.0)
    step(optimizer, {n: g * 64 for n, g in numbers(1).items()})
    for name, wanted in by_hand(1, 0.0).items():
        np.testing.assert_allclose(values(weights)[name], wanted, rtol=1e-5, atol=1e-6)


def test_the_state_travels(tmp_path: Path) -> None:
    one, weights = make(LossScale(scale=4.0), max_grad_norm=1.0)
    for k in (1, 2):
        step(one, numbers(k))
    one.save(tmp_path)
    stored = load_file(tmp_path / "optimizer.safetensors")
    assert {n: a.shape for n, a in stored.items()} == {
        f"{n}.{m}": shape for n, shape in SHAPES.items() for m in ("exp_avg", "exp_avg_sq")
    }
    other, copies = make(LossScale(), max_grad_norm=1.0)
    for name, weight in copies.items():
        weight.set_value(weights[name])
    other.load(tmp_path)
    assert other.scale == one.scale
    for optimizer in (one, other):
        step(optimizer, numbers(3))
    for name in SHAPES:
        np.testing.assert_array_equal(values(weights)[name], values(copies)[name])


@pytest.mark.parametrize(
    ("gone", "counters", "words"),
    [
        ("unet.b.exp_avg", {"optimizer": "adamw", "step": 1}, "missing keys: unet.b.exp_avg"),
        (None, {"optimizer": "sgd", "step": 1}, "holds the state of sgd"),
    ],
)
def test_a_state_that_does_not_fit(gone: str | None, counters: dict[str, Any], words: str, tmp_path: Path) -> None:
    optimizer, _ = make()
    step(optimizer, numbers(1))
    optimizer.save(tmp_path)
    file = tmp_path / "optimizer.safetensors"
    tensors = {n: a for n, a in load_file(file).items() if n != gone}
    save_file(tensors, file, metadata={"format": "pt", "counters": json.dumps(counters)})
    with pytest.raises((ConfigError, RunError), match=words):
        optimizer.load(tmp_path)


def test_the_moving_average(tmp_path: Path) -> None:
    from dreamcore.adapters.paddle.optim import MovingAverage

    optimizer, weights = make()
    average = MovingAverage(weights, 0.15)
    wanted = {n: a.astype(np.float64) for n, a in numbers(0).items()}
    for k, decay in enumerate((0.1, 0.15, 0.15)):  # (1 + n)/(10 + n) up to the decay
        step(optimizer, numbers(k + 1))
        average.update()
        wanted = {n: decay * a + (1 - decay) * values(weights)[n] for n, a in wanted.items()}
    held = values(weights)
    average.save(tmp_path)
    again = MovingAverage(weights, 0.15)
    again.load(tmp_path)
    for mean in (average, again):
        with mean.in_place():
            for name, value in values(weights).items():
                np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-7)
                assert not np.array_equal(value, held[name])
        for name, value in values(weights).items():
            np.testing.assert_array_equal(value, held[name])
