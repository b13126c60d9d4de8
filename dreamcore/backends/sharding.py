"""An optimizer's state that is shared out over processes becomes one file: rank 0 writes it, and asks whoever keeps a
tensor for it when its turn comes, so that nobody ever holds more of the others' state than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..formats.tensors import Entry
from .protocol import World
from .rules import Shape

Read = Callable[[str], NDArray[np.float32]]
"""A tensor of this rank's state by its name in files."""


class HandsOver(World, Protocol):
    """Processes of which one can give another an array."""

    def send(self, array: NDArray[np.float32]) -> None:
        """Give an array to rank 0, which receives it."""
        ...

    def receive(self, shape: Sequence[int], source: int) -> NDArray[np.float32]:
        """What a rank sends to this one, rank 0."""
        ...


@contextmanager
def handing_over(world: HandsOver, read: Read) -> Iterator[None]:
    """Within, rank 0 may read the entries of `whole`; the other ranks come here when it does, and leave after it."""
    if world.rank == 0:
        yield
        world.broadcast("")
        return
    while asked := world.broadcast(""):
        owner, _, name = asked.partition(" ")
        if int(owner) == world.rank:
            world.send(read(name))
    yield


def whole(world: HandsOver, shapes: Mapping[str, Shape], owners: Mapping[str, int], read: Read) -> dict[str, Entry]:
    """The state of all ranks as rank 0 writes it.

    Args:
        shapes: of all tensors, by their names in files, WEIGHT.WHAT.
        owners: the rank that keeps what belongs to WEIGHT.
    """

    def fetched(name: str) -> NDArray[np.float32]:
        owner = owners[name.rpartition(".")[0]]
        if owner == 0:
            return read(name)
        world.broadcast(f"{owner} {name}")
        return world.receive(shapes[name], owner)

    return {name: Entry("F32", shape, partial(fetched, name)) for name, shape in shapes.items()}
