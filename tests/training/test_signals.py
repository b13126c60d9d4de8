"""Several processes stop together, and no signal is lost among them."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamcore.training.loop import _Loop
from dreamcore.training.signals import StopRequest


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


class Bare(_Loop):
    """A run whose updates do nothing, in the first of two processes, which a signal reaches during one of them.

    Args:
        asks_every: updates between questions.
        signalled: the update of the signal.
    """

    def __init__(self, asks_every: int, signalled: int):
        self.world: Any = SimpleNamespace(size=2, asks_every=asks_every, gather=self.gather)
        self.total, self.signalled, self.made, self.asked = 12, signalled, 0, list[int]()
        quiet = SimpleNamespace(start=len, message=len, end=len)
        self.p: Any = SimpleNamespace(folder=None, run_folder=None, first=0, trackers=quiet, memory=quiet)
        self.p.trackers.start = lambda info: None
        self.resolved: Any = SimpleNamespace(settings={}, logging_dir=None)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        self.asked.append(self.made)
        return [values, np.zeros(1)]

    def update(self, update: int) -> None:
        self.made += 1
        if self.made == self.signalled:
            signal.raise_signal(signal.SIGTERM)

    def validate(self, done: int) -> None: ...
    def finish(self) -> None: ...
    def stopped(self, done: int, stop: StopRequest) -> Any:
        return SimpleNamespace(updates=done, exit_code=stop.exit_code)


@pytest.mark.parametrize(("asks_every", "stops"), [(1, 6), (5, 10)])
def test_ranks_ask_each_other_as_seldom_as_their_world_says(asks_every: int, stops: int) -> None:
    """And not once in between: where it goes through the devices, the host would wait for them after every update."""
    run = Bare(asks_every, signalled=6)
    ended = run.run()
    assert run.asked == list(range(asks_every, stops + 1, asks_every))
    assert (ended.updates, ended.exit_code) == (stops, 143)
