"""The update by itself: AdamW against NumPy, clipping, the loss scale, the moving average, vectors of parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.config import TrainConfig
from dreamcore.errors import RunError
from dreamcore.lossscale import LossScale

from .. import needs
from ..contract.runs import configuration

pytestmark = needs.mindspore
SHAPES = {"unet.a": (3, 4), "unet.b": (5,), "text_encoder.c": (2, 2)}
LR = {"unet": 1e-2, "text_encoder": 3e-3}


def config_for(**settings: Any) -> TrainConfig:
    return configuration(Path("model"), Path("photos"), Path("out"), **settings)


def numbers(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def make(scale: Any = None, **settings: Any) -> Any:
    import mindspore as ms

    from dreamcore.adapters.mindspore.optim import Optimizer

    start = {n: ms.Parameter(ms.Tensor(a), name=n) for n, a in numbers(0).items()}
    parts = {c: {n: p for n, p in start.items() if n.startswith(c)} for c in LR}
    return Optimizer(parts, config_for(**settings), scale), start


def step(optimizer: Any, gradients: dict[str, np.ndarray]) -> float:
    import mindspore as ms

    from dreamcore.adapters.mindspore.buckets import flatten_all

    return float(optimizer.step(flatten_all(optimizer.buckets, [ms.Tensor(g) for g in gradients.values()]), LR))


def by_hand(updates: int, max_norm: float, decay: float = 1e-2) -> dict[str, np.ndarray]:
    """AdamW as in arXiv 1711.05101, algorithm 2, with torch's order of operations, in float64."""
    weights = {n: a.astype(np.float64) for n, a in numbers(0).items()}
    first = {n: np.zeros_like(a) for n, a in weights.items()}
    second = {n: np.zeros_like(a) for n, a in weights.items()}
    for k in range(1, updates + 1):
        gradients = numbers(k)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
        for n, w in weights.items():
            g = gradients[n] * min(1.0, max_norm / (norm + 1e-6))
            lr = LR[n.partition(".")[0]]
            w *= 1 - lr * decay
            first[n] = 0.9 * first[n] + 0.1 * g
            second[n] = 0.999 * second[n] + 0.001 * g**2
            w -= lr * (first[n] / (1 - 0.9**k)) / (np.sqrt(second[n] / (1 - 0.999**k)) + 1e-8)
    return weights


@pytest.mark.parametrize("max_norm", [1.0, 1e9])
def test_adamw(max_norm: float) -> None:
    optimizer, weights = make(max_grad_norm=max_norm)
    start = {n: p.asnumpy().copy() for n, p in weights.items()}
    for k in range(1, 6):
        gradients = numbers(k)
        norm = step(optimizer, gradients)
        assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in gradients.values())), rel=1e-5)
    for name, wanted in by_hand(5, max_norm).items():
        assert np.abs(weights[name].asnumpy() - start[name]).min() > 1e-4, f"{name} does not move"
        np.testing.assert_allclose(weights[name].asnumpy(), wanted, rtol=1e-5, atol=1e-6, err_msg=name)


def test_buckets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamcore.adapters.mindspore import optim
    from dreamcore.adapters.mindspore.buckets import make_buckets

    monkeypatch.setattr(optim, "make_buckets", lambda parameters: make_buckets(parameters, limit=1))
    optimizer, weights = make(max_grad_norm=1.0)
    assert [list(b.named) for b in optimizer.buckets] == [[n] for n in SHAPES]
    for k in range(1, 6):
        step(optimizer, numbers(k))
    for name, wanted in by_hand(5, 1.0).items():
        np.testing.assert_allclose(weights[name].asnumpy(), wanted, rtol=1e-5, atol=1e-6)


def test_an_overflow_is_skipped_and_halves_the_scale() -> None:
    optimizer, weights = make(LossScale(scale=1024.0, growth_interval=2), max_grad_norm=1.0)
    plain, same = make(max_grad_norm=1.0)
    before = {n: p.asnumpy().copy() for n, p in weights.items()}
    assert np.isinf(step(optimizer, numbers(1) | {"unet.b": np.full(5, np.inf, np.float32)}))
    for name, parameter in weights.items():
        np.testing.assert_array_equal(parameter.asnumpy(), before[name])
    assert optimizer.loss_scale.scale == 512.0
    scaled = {n: g * 512 for n, g in numbers(1).items()}
    assert step(optimizer, scaled) == pytest.approx(step(plain, numbers(1)), rel=1e-6)
    for name, parameter in weights.items():
        np.testing.assert_allclose(parameter.asnumpy(), same[name].asnumpy(), rtol=1e-6)
    step(optimizer, scaled)
    assert optimizer.loss_scale.scale == 1024.0, "doubled after two updates without overflow"


def test_the_state_travels(tmp_path: Path) -> None:
    one, weights = make(LossScale(scale=1.0), max_grad_norm=1.0)
    for k in (1, 2):
        step(one, numbers(k))
    one.save(tmp_path)
    stored = load_file(tmp_path / "optimizer.safetensors")
    assert {n: a.shape for n, a in stored.items()} == {
        f"{n}.{m}": shape for n, shape in SHAPES.items() for m in ("exp_avg", "exp_avg_sq")
    }
    other, copies = make(LossScale(), max_grad_norm=1.0)
    for name, parameter in copies.items():
        parameter.set_data(weights[name].value().copy())
    other.load(tmp_path)
    assert other.loss_scale == one.loss_scale
    for optimizer in (one, other):
        step(optimizer, numbers(3))
    for name in SHAPES:
        np.testing.assert_array_equal(weights[name].asnumpy(), copies[name].asnumpy())


@pytest.mark.parametrize(("name", "words"), [("unet.a.exp_avg", "missing keys: unet.a.exp_avg"), (None, "sgd")])
def test_a_state_that_does_not_fit(name: str | None, words: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    optimizer, _ = make()
    optimizer.save(tmp_path)
    file = tmp_path / "optimizer.safetensors"
    tensors = {n: a for n, a in load_file(file).items() if n != name}
    counters = {"optimizer": "adamw" if name else "sgd", "step": 1}
    save_file(tensors, file, metadata={"counters": json.dumps(counters)})
    with pytest.raises(RunError, match=words):
        optimizer.load(tmp_path)


def test_the_moving_average(tmp_path: Path) -> None:
    from dreamcore.adapters.mindspore.optim import MovingAverage

    optimizer, weights = make()
    average = MovingAverage(optimizer.buckets, 0.15)
    wanted = {n: a.astype(np.float64) for n, a in numbers(0).items()}
    for k, decay in enumerate((0.1, 0.15, 0.15)):  # (1 + n)/(10 + n) up to the decay
        step(optimizer, numbers(k + 1))
        average.update()
        wanted = {n: decay * a + (1 - decay) * weights[n].asnumpy() for n, a in wanted.items()}
    held = {n: p.asnumpy().copy() for n, p in weights.items()}
    with average.in_place():
        for name in SHAPES:
            np.testing.assert_allclose(weights[name].asnumpy(), wanted[name], rtol=1e-5, atol=1e-7)
            assert not np.array_equal(weights[name].asnumpy(), held[name])
    for name in SHAPES:
        np.testing.assert_array_equal(weights[name].asnumpy(), held[name])
    average.save(tmp_path)
    again = MovingAverage(optimizer.buckets, 0.15)
    again.load(tmp_path)
    with again.in_place():
        for name in SHAPES:
            np.testing.assert_allclose(weights[name].asnumpy(), wanted[name], rtol=1e-5, atol=1e-7)
