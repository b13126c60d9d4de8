"""Learning-rate schedules against diffusers' `get_scheduler`, and a few values by hand."""

from __future__ import annotations

import warnings

import pytest

from dreamcore.training.learning_rate import learning_rate

from ..support import needs

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")


def theirs(base: float, name: str, total: int, warmup: int, num_cycles: int, power: float) -> list[float]:
    """The rates that diffusers applies to updates 0 … total−1, and the one after the last."""
    import torch
    from diffusers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=total, num_cycles=num_cycles, power=power
    )
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(total):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    return rates


@needs.torch
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("total", "warmup", "num_cycles", "power"),
    [(20, 0, 1, 1.0), (20, 5, 1, 1.0), (21, 4, 3, 2.0), (7, 6, 2, 0.5), (1, 0, 1, 1.0), (12, 1, 5, 3.0)],
)
def test_as_in_diffusers(name: str, total: int, warmup: int, num_cycles: int, power: float) -> None:
    base = 3e-4
    ours = [
        learning_rate(base, name, update, total, warmup=warmup, num_cycles=num_cycles, power=power)
        for update in range(total + 1)
    ]
    assert ours == pytest.approx(theirs(base, name, total, warmup, num_cycles, power), rel=1e-12, abs=1e-18)


@needs.torch
@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_longer_than_the_run(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = [learning_rate(1e-4, name, update, 5, warmup=10) for update in range(5)]
    assert ours == pytest.approx(theirs(1e-4, name, 5, 10, 1, 1.0)[:5], rel=1e-12)


def test_values_by_hand() -> None:
    assert [learning_rate(8.0, "linear", u, 10, warmup=2) for u in (0, 1, 2, 4, 10)] == [0.0, 4.0, 8.0, 6.0, 0.0]
    assert learning_rate(8.0, "cosine", 5, 10) == pytest.approx(4.0)
    assert learning_rate(8.0, "cosine", 2, 8) == pytest.approx(4.0 * (1 + 0.5**0.5))
    # two cycles over 8 updates: update 4 starts the second from the top
    assert [learning_rate(8.0, "cosine_with_restarts", u, 8, num_cycles=2) for u in (2, 4, 6)] == pytest.approx(
        [4, 8, 4]
    )
    assert learning_rate(1.0, "polynomial", 5, 10, power=2.0) == pytest.approx(0.25 * (1 - 1e-7) + 1e-7)
    assert learning_rate(8.0, "constant", 0, 10, warmup=5) == 8.0


def test_polynomial_below_its_end_stays_where_it_is() -> None:
    assert {learning_rate(5e-8, "polynomial", u, 4) for u in range(5)} == {5e-8}


def test_unknown_schedule() -> None:
    with pytest.raises(ValueError, match="'exponential'"):
        learning_rate(1.0, "exponential", 0, 1)
