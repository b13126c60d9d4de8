"""What lies where: the storages that a placement makes, counted by logical device and component until they are freed.

"device" and "host" are what a run calls them: on a CPU both are the same memory, so that what leaves the device and
when is seen there too.  A storage counts until it is really gone, and not until somebody says so.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from typing import Literal

import torch

Place = Literal["device", "host"]


class Store:
    """Tensors of a run by place and component.

    Args:
        device: which the run computes on; the host's memory where that is the CPU.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.bytes = Counter[tuple[Place, str]]()
        """By place and component, now."""
        self.peak = Counter[tuple[Place, str]]()
        """At their most."""
        self._counted = set[int]()
        self._lock = threading.RLock()  # a storage may be freed by another thread, or by this one in the middle

    def where(self, place: Place) -> torch.device:
        """The real device of a logical one."""
        return self.device if place == "device" else torch.device("cpu")

    def on(self, place: Place) -> int:
        """Bytes there now."""
        with self._lock:
            return sum(size for (where, _), size in self.bytes.items() if where == place)

    def keep(self, tensor: torch.Tensor, place: Place, component: str) -> torch.Tensor:
        """Count a tensor's storage, once, until it is freed; returns the tensor."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        with self._lock:
            if key in self._counted:
                return tensor
            self._counted.add(key)
            self.bytes[place, component] += size
            self.peak[place, component] = max(self.peak[place, component], self.bytes[place, component])
        weakref.finalize(storage, self._freed, key, place, component, size).atexit = False
        return tensor

    def copy(
        self, tensor: torch.Tensor, place: Place, component: str, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """A copy of its own storage, in the tensor's layout."""
        made = tensor.detach().to(self.where(place), dtype or tensor.dtype, copy=True)
        return self.keep(made, place, component)

    def _freed(self, key: int, place: Place, component: str, size: int) -> None:
        with self._lock:
            self._counted.discard(key)
            self.bytes[place, component] -= size
