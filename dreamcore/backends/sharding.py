"""The optimizer's state shared out over processes (ZeRO's first stage, arXiv 1910.02054): each keeps that of some.

All ranks compute with all weights.  Gradients are added up where their weight's state is kept, which is where it is
updated; then its new value goes to everyone.  In files the state is one: rank 0 writes it, and asks whoever keeps a
tensor for it when its turn comes, so that nobody ever holds more of the others' state than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..formats.optimizer_state import Counters, save_optimizer
from ..formats.tensors import Entry
from .optimizers import saved_shapes
from .protocol import World
from .rules import Rule, Shape

T = TypeVar("T")
"""A framework's tensors."""
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


class Share(Protocol[T]):
    """The optimizer of some weights."""

    rule: Rule
    total: Callable[[Any], Any]
    """Makes of the norm of these gradients the norm that is clipped: there may be others elsewhere."""
    beside: Mapping[str, Sequence[int]]
    """Shapes of weights whose state is kept elsewhere, and in the same files."""

    @property
    def scales(self) -> bool: ...

    def scaled(self, loss: T) -> T: ...

    def rate_factor(self) -> Any: ...

    def judged(self) -> AbstractContextManager[None]: ...

    def step(self, lr: Mapping[str, float]) -> T: ...

    def load(self, folder: Path) -> None: ...

    def counters(self) -> Counters: ...

    def array(self, name: str) -> NDArray[np.float32]:
        """A tensor of the state by its name in files."""
        ...


class Wires(Protocol[T]):
    """What goes from rank to rank on the devices."""

    def add_up(self, shares: Sequence[Sequence[T]]) -> None:
        """Let each rank have the sums of all ranks' gradients of its weights, and the others none of these.

        Args:
            shares: by rank.
        """
        ...

    def hand_out(self, weights: Sequence[T], owner: int) -> None:
        """Let every rank have one rank's weights."""
        ...

    def norm(self, own: T) -> T:
        """The norm over all ranks' shares, of whose norms this is one."""
        ...


class Sharded(Generic[T]):
    """An optimizer of which each rank has its share.

    Args:
        parameters: of all ranks, by component, then by COMPONENT.PARAMETER as published.
        shapes: theirs, as files hold them.
        owners: the rank that keeps a weight's state, by its name.
        make: the optimizer of a share.
    """

    def __init__(
        self,
        parameters: Mapping[str, Mapping[str, T]],
        shapes: Mapping[str, Sequence[int]],
        owners: Mapping[str, int],
        make: Callable[[Mapping[str, Mapping[str, T]]], Share[T]],
        world: HandsOver,
        wires: Wires[T],
    ):
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self._world, self._wires, self._owners, self._shapes = world, wires, owners, shapes
        self._shares = [[p for n, p in self.named.items() if owners[n] == rank] for rank in range(world.size)]
        own = {c: {n: p for n, p in named.items() if owners[n] == world.rank} for c, named in parameters.items()}
        self.inner = make(own)
        self.inner.total = wires.norm
        self.inner.beside = {name: shape for name, shape in shapes.items() if owners[name] != world.rank}

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, for fp16."""
        return self.inner.scales

    def scaled(self, loss: T) -> T:
        """What the backward pass starts from."""
        return self.inner.scaled(loss)

    def rate_factor(self) -> Any:
        """What the rule multiplies the learning rate by, where it finds that itself."""
        return self.inner.rate_factor()

    def judged(self) -> AbstractContextManager[None]:
        """The weights are those that are judged and used."""
        return self.inner.judged()

    def step(self, lr: Mapping[str, float]) -> T:
        """Clip and update from the gradients, which are added up over ranks here; returns their norm [], on the
        device."""
        self._wires.add_up(self._shares)
        norm = self.inner.step(lr)
        for owner, share in enumerate(self._shares):
            self._wires.hand_out(share, owner)
        return norm

    # Files

    def whole_state(self) -> AbstractContextManager[None]:
        """Within, rank 0 may save; the others come here at the same time."""
        return handing_over(self._world, self.inner.array)

    def save(self, folder: Path) -> None:
        """Write the state of all ranks, on rank 0, within `whole_state`."""
        counters, shapes = self.inner.counters(), saved_shapes(self.inner.rule, self._shapes)
        keeper = keepers_of_state(self._owners)
        entries = whole(self._world, shapes, keeper, self.inner.array) if counters.step else {}
        save_optimizer(folder, entries, counters)

    def load(self, folder: Path) -> None:
        """Read this rank's share of what any number of ranks wrote."""
        self.inner.load(folder)


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


def keepers_of_state(owners: Mapping[str, int]) -> Callable[[str], int]:
    """The rank that keeps a tensor of the optimizer's state, by its name in files, WEIGHT.WHAT.

    Args:
        owners: by WEIGHT.
    """
    return lambda name: owners[name.rpartition(".")[0]]


def whole(
    world: HandsOver, shapes: Mapping[str, Shape], keeper: Callable[[str], int], read: Read, kind: str = ""
) -> dict[str, Entry]:
    """Tensors of all ranks as rank 0 writes them.

    Args:
        shapes: of all, by their names in files.
        keeper: the rank that keeps a tensor.
        kind: what is before its name where ranks ask for it.
    """

    def fetched(name: str) -> NDArray[np.float32]:
        owner, asked = keeper(name), f"{kind} {name}".lstrip()
        if owner == 0:
            return read(asked)
        world.broadcast(f"{owner} {asked}")
        return world.receive(shapes[name], owner)

    return {name: Entry("F32", shape, partial(fetched, name)) for name, shape in shapes.items()}
