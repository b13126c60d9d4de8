"""Arrays on their way to a card before they are asked for: through locked memory, on a stream of their own.

Nothing of it was measured on a card, nor ran on one.  What it must keep to, by PyTorch's notes on CUDA semantics:

- a stream is chosen for a thread, and with it the device, which a new thread has not: both are chosen here each time;
- a copy is asynchronous from locked memory alone; what was locked is free again when it is let go, for the allocator
  marks it with the copy's stream;
- who uses a tensor on another stream than the one that wrote it waits for an event of the latter, and tells the
  allocator (`record_stream`), or its memory would be given away while it is still read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

KEPT = 2
"""Updates whose arrays wait to be asked for: the next one's come while some of this one are still to be used."""


class Staging:
    """What a coming update needs; called by the thread that forms it, and asked by the one that computes with it.

    Args:
        device: a card.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._there: list[dict[int, tuple[NDArray[Any], torch.Tensor, torch.cuda.Event]]] = []

    def send(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Begin to copy an update's arrays; what was sent for the one before the last, and never asked for, goes."""
        sent = {id(array): (array, *self._sent(array)) for array in arrays}
        self._there = [*self._there[1 - KEPT :], sent]  # a new list: the other thread may be looking into the old one

    def _sent(self, array: NDArray[Any]) -> tuple[torch.Tensor, torch.cuda.Event]:
        with torch.cuda.stream(self._side):
            host = torch.from_numpy(np.ascontiguousarray(array)).pin_memory()
            return host.to(self._device, non_blocking=True), self._side.record_event()

    def take(self, array: NDArray[Any]) -> torch.Tensor | None:
        """An array that was sent, whose copy what is computed from here on waits for; None of another."""
        found = next((sent.pop(id(array)) for sent in self._there if id(array) in sent), None)
        if found is None:
            return None
        main = torch.cuda.current_stream(self._device)
        main.wait_event(found[2])
        found[1].record_stream(main)
        return found[1]
