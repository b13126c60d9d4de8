"""Arrays on their way to a card before they are asked for: through locked memory, on a stream of their own.

Nothing of it was measured on a card.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Staging:
    """What a coming update needs; called by the thread that forms it, and asked by the one that computes with it.

    Args:
        device: a card.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._there = dict[int, tuple[NDArray[Any], torch.Tensor, torch.cuda.Event]]()

    def send(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Begin to copy arrays; what was sent before and never asked for goes."""
        self._there = {id(array): (array, *self._sent(array)) for array in arrays}

    def _sent(self, array: NDArray[Any]) -> tuple[torch.Tensor, torch.cuda.Event]:
        with torch.cuda.stream(self._side):
            host = torch.from_numpy(np.ascontiguousarray(array)).pin_memory()
            return host.to(self._device, non_blocking=True), self._side.record_event()

    def take(self, array: NDArray[Any]) -> torch.Tensor | None:
        """An array that was sent, whose copy what is computed from here on waits for; None of another."""
        found = self._there.pop(id(array), None)
        if found is None:
            return None
        main = torch.cuda.current_stream(self._device)
        main.wait_event(found[2])
        found[1].record_stream(main)
        return found[1]
