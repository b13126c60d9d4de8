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
from dreamcore.training.steering import Asked, Steering


@dataclass
class Rank:
    """One of two processes, which a signal reaches while they ask each other, as slow hosts let it."""

    stop: StopRequest
    size: int = 2
    other: tuple[float, ...] = (0, 0, 0)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        own = values.copy()
        self.stop._handle(signal.SIGTERM, None)
        return [own, np.array(self.other)]


def test_a_signal_that_comes_while_ranks_ask_each_other_counts_at_the_next_update() -> None:
    stop = StopRequest(lambda text: None)
    world: Any = Rank(stop)
    steering = Steering(world, None)
    assert not steering.agree(stop).stop, "the other rank has not heard of it, and goes on"
    world.gather = lambda values: [values, np.zeros(3)]
    assert steering.agree(stop).stop and stop.exit_code == 143


@pytest.mark.parametrize(
    ("other", "code", "by"),
    [((signal.SIGINT, 0, 0), 130, "SIGINT"), ((signal.SIGTERM, 1, 0), 143, "dreambooth stop")],
)
def test_what_only_another_rank_has_heard_stops_this_one_too(other: tuple[float, ...], code: int, by: str) -> None:
    stop = StopRequest(lambda text: None)
    world: Any = SimpleNamespace(size=2, gather=lambda values: [values, np.array(other, np.float64)])
    assert Steering(world, None).agree(stop) == Asked(stop=True, sample=False)
    assert (stop.exit_code, stop.by) == (code, by)


def test_images_are_waited_for_by_all_ranks() -> None:
    world: Any = SimpleNamespace(size=2, gather=lambda values: [np.array([0, 0, 2.0]), values])
    assert Steering(world, None).agree(StopRequest(lambda text: None)) == Asked(stop=False, sample=True)


class Bare(_Loop):
    """A run whose updates do nothing, in the first of two processes, which a signal reaches during one of them.

    Args:
        asks_every: updates between questions.
        signalled: the update of the signal.
    """

    def __init__(self, asks_every: int, signalled: int):
        self.world: Any = SimpleNamespace(size=2, asks_every=asks_every, gather=self.gather)
        self.steering = Steering(self.world, None)
        self.total, self.signalled, self.made, self.asked = 12, signalled, 0, list[int]()
        self.enough = False
        quiet = SimpleNamespace(start=len, message=len, end=len)
        self.p: Any = SimpleNamespace(
            folder=None, run_folder=None, first=0, finished_at=None, trackers=quiet, memory=quiet
        )
        self.p.trackers.start = lambda info: None
        self.resolved: Any = SimpleNamespace(settings={}, logging_dir=None)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        self.asked.append(self.made)
        return [values, np.zeros(3)]

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
