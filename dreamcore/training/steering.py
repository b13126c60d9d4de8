"""What is asked of a run while it trains, by signals, by requests from outside and by callbacks: all ranks heed it, or
none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..backends.protocol import World
from ..runs.requests import Inbox, Request
from .callbacks import Callbacks
from .signals import Asker, StopRequest


class Asked(NamedTuple):
    """What all ranks do after this update."""

    stop: bool
    sample: bool
    """Images are asked for."""


class Steering:
    """Asks all ranks what each has heard.

    Args:
        world: the ranks.
        inbox: requests to the run; None but on the main process.
        callbacks: those of the run, which are told of nothing but on the main process.
    """

    def __init__(self, world: World, inbox: Inbox | None, callbacks: Callbacks | None = None):
        self._world, self._inbox, self._callbacks = world, inbox, callbacks
        self.requests: list[Request] = []
        """For images, on the main process."""

    def agree(self, stop: StopRequest) -> Asked:
        """What to do after this update.

        They ask each other from host to host after each update, for whoever sends a signal to all does not wait long;
        their devices need not have finished it.  Where the question goes through the devices, it is put only every
        `World.asks_every` updates.  A signal that comes while they ask is for the next time.
        """
        found = self._inbox.look() if self._inbox else []
        if any(request.action == "stop" for request in found):
            stop.ask(Asker.OUTSIDE)
        if self._callbacks and self._callbacks.error is not None:
            stop.ask(Asker.FAILURE, self._callbacks.failed)
        elif self._callbacks and self._callbacks.stop:
            stop.ask(Asker.CALLBACK, self._callbacks.stop)
        self.requests = [request for request in found if request.action == "sample"]
        mine = np.array([stop.signal, stop.asker, len(self.requests)], np.float64)
        asked = mine if self._world.size == 1 else np.max(self._world.gather(mine), axis=0)
        if asked[0]:
            stop.signal, stop.asker = int(asked[0]), Asker(int(asked[1]))
            if stop.asker >= Asker.CALLBACK:
                stop.words = self._world.broadcast(stop.words)
        return Asked(bool(asked[0]), bool(asked[2]))
