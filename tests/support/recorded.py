"""A recording of operators that is replayed as a CUDA graph is: on the same memory, without Python between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class Recording(TorchDispatchMode):
    """Operators in the order in which they ran.

    What an operator made is named by its place in the recording, and so is new at each replay; every other tensor is
    the very one that was there while it was recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[torch.Tensor, int]] = {}
        """By identity, with the tensor, so that no other one comes to have its identity."""
        self._ran: list[tuple[Any, Any, Any, list[int]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        named = self._named(args), self._named(kwargs)
        out = func(*args, **kwargs)
        slots: list[int] = []

        def note(tensor: torch.Tensor) -> torch.Tensor:
            _, slot = self._made.setdefault(id(tensor), (tensor, len(self._made)))
            slots.append(slot)
            return tensor

        returned = {id(one) for one in _tensors((args, kwargs))}
        if not any(id(one) in returned for one in _tensors(out)):  # else in place: it is what it was
            tree_map_only(torch.Tensor, note, out)
        self._ran.append((func, *named, slots))
        return out

    def replay(self) -> None:
        made: dict[int, torch.Tensor] = {}

        def given(slot: Slot) -> torch.Tensor:
            return made[slot.number]

        with torch.no_grad():
            for func, args, kwargs, slots in self._ran:
                out = func(*tree_map_only(Slot, given, args), **tree_map_only(Slot, given, kwargs))
                if slots:
                    made |= dict(zip(slots, _tensors(out), strict=True))

    def _named(self, given: Any) -> Any:
        return tree_map_only(
            torch.Tensor, lambda one: Slot(self._made[id(one)][1]) if id(one) in self._made else one, given
        )


class Slot:
    """What an operator of the recording made."""

    def __init__(self, number: int) -> None:
        self.number = number


def _tensors(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, found.append, values)
    return found


class Recorder:
    """As `adapters.torch.graphs.Card`, on a CPU."""

    def __init__(self) -> None:
        self.recorded, self.replays = 0, 0

    def warm_up(self, body: Callable[[], None]) -> None:
        body()

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        with Recording() as recording:
            body()

        def replay() -> None:
            self.replays += 1
            recording.replay()

        return replay
