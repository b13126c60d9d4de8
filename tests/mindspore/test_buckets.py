"""Parameters taken together as vectors."""

from __future__ import annotations

import pytest

from ..contract.test_update import assert_close
from ..support import needs
from ..support.benches import SHAPES, adamw_by_hand, bench, numbers

pytestmark = needs.mindspore


def test_buckets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamcore.adapters.mindspore import optim
    from dreamcore.adapters.mindspore.buckets import make_buckets

    monkeypatch.setattr(optim, "make_buckets", lambda parameters: make_buckets(parameters, limit=1))
    made = bench(max_grad_norm=1.0)
    assert [list(bucket.named) for bucket in made.optimizer.buckets] == [[name] for name in SHAPES]
    for k in range(1, 6):
        made.step(numbers(k))
    assert_close(made.values(), adamw_by_hand(5, 1.0))
