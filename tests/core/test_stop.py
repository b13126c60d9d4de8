"""Several processes stop together, and no signal is lost among them."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamcore.loop import _Loop
from dreamcore.signals import StopRequest


@dataclass
class Rank:
    """One of two processes, which a signal reaches while they ask each other, as slow hosts let it."""

    stop: StopRequest
    size: int = 2
    other: float = 0.0

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        own = values.copy()
        self.stop._handle(signal.SIGTERM, None)
        return [own, np.array([self.other])]


def test_a_signal_that_comes_while_ranks_ask_each_other_counts_at_the_next_update() -> None:
    loop: Any = object.__new__(_Loop)
    stop = StopRequest(lambda text: None)
    loop.world = Rank(stop)
    assert not loop.agreed(stop), "the other rank has not heard of it, and goes on"
    loop.world.gather = lambda values: [values, np.zeros(1)]
    assert loop.agreed(stop) and stop.exit_code == 143


def test_a_signal_that_only_another_rank_has_stops_this_one_too() -> None:
    loop: Any = object.__new__(_Loop)
    stop = StopRequest(lambda text: None)
    loop.world = Rank(stop)
    loop.world.gather = lambda values: [values, np.array([float(signal.SIGINT)])]
    assert loop.agreed(stop) and stop.exit_code == 130
