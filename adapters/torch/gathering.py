"""Weights of which each rank keeps some, and which all have while they are computed with (ZeRO's third stage, arXiv
1910.02054; what PyTorch calls fully sharded).

A network's blocks are gathered for their turns, as blocks that wait on the host come to the device; what is in no block
is there for a whole pass.  Every weight is one rank's, whole, and never a part of several: so rules that look at
matrices, files under published names and whoever reads one weight need no more than its keeper.

Gathering is everyone's business: whoever computes announces it, and whoever has nothing to compute joins in, wherever
it waits for the others (`Together`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dreamcore.backends.launching import all_alive
from dreamcore.errors import RunError
from dreamcore.placement.blocks import unit_of

from .launch import TorchWorld
from .slabs import ALIGNED, size_of, views
from .store import Store
from .streaming import Copy, Streaming, going_back

SHARE, GATHERED = "share of the weights", "blocks gathered for their turns"
"""What the store calls them."""
NOBODY, END = -1.0, -2.0
Exchange = Callable[[NDArray[np.float64]], list[NDArray[np.float64]]]
"""Numbers of all ranks for this rank's."""


class Kept:
    """A weight of a network.

    Between turns its numbers are with its keeper alone: in `master` where it trains, in its parameter otherwise.  To
    everyone else it is there by shape and type, and not a number, so that a use out of turn is seen in the loss.

    Args:
        owner: the rank that keeps it.
        master: what is computed with, in float32, on that rank, where it trains.
        dtype: in which it is computed with.
        form: in which layout, on every rank.
    """

    def __init__(
        self,
        parameter: torch.nn.Parameter,
        owner: int,
        rank: int,
        master: torch.Tensor | None,
        dtype: torch.dtype,
        form: torch.memory_format,
    ):
        self.parameter, self.owner, self.master, self.dtype = parameter, owner, master, dtype
        self.mine = owner == rank
        self._stays = self.mine and master is None and not parameter.requires_grad
        self.like = torch.empty(parameter.shape, dtype=dtype, device="meta", memory_format=form)
        self._nothing = torch.full((), torch.nan, dtype=dtype, device=parameter.device)

    @property
    def source(self) -> torch.Tensor:
        """Its numbers, on its keeper, between turns."""
        return self.parameter.data if self.master is None else self.master.detach()

    def rest(self) -> None:
        """Let go of what is not this rank's to keep."""
        if not self._stays and self.parameter.data_ptr() != self._nothing.data_ptr():
            self.parameter.data = self._nothing.expand(self.parameter.shape)


class Gathered:
    """Of `streaming.Turns`: weights that come from their keepers."""

    def __init__(self, weights: Sequence[Kept], world: TorchWorld, store: Store):
        self.weights = sorted(weights, key=lambda one: one.owner)
        self._store = store
        self._size = size_of([one.like for one in self.weights])
        self._spans: list[tuple[int, int, int]] = []
        start = 0
        for rank in range(world.size):
            size = size_of([one.like for one in self.weights if one.owner == rank])
            if size:
                self._spans.append((rank, start, start + size))
            start += size
        self._away: list[torch.Tensor] = []

    @torch.no_grad()
    def bring(self) -> Copy:
        if not self._away:
            self.settle()
        slab = torch.empty(max(self._size, ALIGNED), dtype=torch.uint8, device=self._store.where("device"))
        self._store.keep(slab, "device", GATHERED)
        there = list(views(slab, [one.like for one in self.weights]))
        for one, view in zip(self.weights, there, strict=True):
            if one.mine:
                view.copy_(one.source)
        with all_alive():
            flying = [dist.broadcast(slab[a:b], rank, async_op=True) for rank, a, b in self._spans]

        def wait() -> None:
            with all_alive():
                while flying:
                    flying.pop().wait()

        return Copy(slab, there, wait)

    def enter(self, copy: Copy) -> None:
        self._away = [one.parameter.data for one in self.weights]
        for one, view in zip(self.weights, copy.views, strict=True):
            one.parameter.data = view

    def leave(self) -> None:
        for one, data in zip(self.weights, self._away, strict=True):
            one.parameter.data = data
        self._away = []

    def settle(self) -> None:
        for one in self.weights:
            one.rest()
            if one.mine:
                self._store.keep(one.source, "device", SHARE)


@dataclass
class Pass:
    """A network's pass: its part for the whole pass, and blocks by turns."""

    number: int
    turns: list[str] = field(default_factory=list)
    """In their order, which is the same in every pass."""
    known: bool = False
    """Whether all ranks know the order."""
    place: int = 0
    """Of the turn that is next."""


class Gathering(Streaming):
    """The blocks of networks that ranks share out.

    Args:
        networks: by component.
        weights: by component, then by path within the network.
        world: as it is, not one that joins in.
    """

    def __init__(
        self,
        networks: Mapping[str, torch.nn.Module],
        weights: Mapping[str, Mapping[str, Kept]],
        world: TorchWorld,
        store: Store,
    ):
        units: dict[str, list[Kept]] = {}
        layers: dict[str, torch.nn.Module] = {}
        self._passes = {component: Pass(number) for number, component in enumerate(networks)}
        for component, network in networks.items():
            for path, kept in {"": None, **weights[component]}.items():
                unit = unit_of(path)
                layers[name := f"{component}:{unit}"] = network.get_submodule(unit)
                units.setdefault(name, []).extend([kept] if kept else [])
        blocks = {name: Gathered(found, world, store) for name, found in units.items()}
        self._names = list(blocks)
        self._exchange: Exchange = super_gather(world)
        self._training = False
        self._running: Pass | None = None
        """What is announced; nothing in training, where all ranks do the same."""
        super().__init__(blocks, layers, [f"{component}:" for component in networks])
        for block in blocks.values():
            block.settle()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within, all ranks make the same passes, and nobody announces any."""
        self._training = True
        try:
            yield
        finally:
            self._training = False

    def serve(self) -> None:
        """Join in what other ranks compute, until nobody computes anything."""
        while (wanted := self._wanted(NOBODY)) is not None:
            self._follow(wanted)

    # Turns

    def _enter(self, name: str) -> None:
        component, _, unit = name.partition(":")
        own = self._passes[component]
        if not unit:
            self._begin(component, own)
        elif not going_back():
            self._next(name, own)
        self._compute(name)

    def _begin(self, component: str, own: Pass) -> None:
        own.place = 0
        for name in [name for name in self._there if name.startswith(f"{component}:")]:
            self._there.pop(name).wait()
        if self._training:
            return
        while (wanted := self._wanted(float(own.number))) is not own:
            assert wanted is not None
            self._follow(wanted)
        self._running = own

    def _next(self, name: str, own: Pass) -> None:
        """See to it that the order of turns is known to all."""
        if own.known or (self._training and own.place < len(own.turns)):
            if own.place >= len(own.turns) or own.turns[own.place] != name:
                raise RunError(f"shard: {name} is computed with out of its turn; give shard optimizer")
        else:
            own.turns.append(name)
            if not self._training:
                self._agree(float(self._names.index(name)))
        own.place += 1

    def _leave(self, name: str) -> None:
        component, _, unit = name.partition(":")
        own = self._passes[component]
        super()._leave(name)
        if unit or going_back():
            return
        if self._running is own:
            if not own.known:
                self._agree(END)
            self._running = None
        own.known = True

    def _coming(self, name: str) -> str | None:
        own = self._passes[name.partition(":")[0]]
        if not own.known:
            return None
        number = own.turns.index(name) + (-1 if going_back() else 1)
        return own.turns[number] if 0 <= number < len(own.turns) else None

    # Ranks

    def _wanted(self, mine: float) -> Pass | None:
        """The pass that is made now, of those that ranks want to make; None where nobody wants any."""
        wanted = [float(one[0]) for one in self._exchange(np.array([mine]))]
        numbers = [number for number in wanted if number >= 0]
        return next(one for one in self._passes.values() if one.number == numbers[0]) if numbers else None

    def _agree(self, mine: float) -> float:
        """The block whose turn it is, or `END`, as those say who compute."""
        said = {float(one[0]) for one in self._exchange(np.array([mine]))} - {NOBODY}
        if len(said) != 1:
            raise RunError("shard: processes compute with blocks in different orders; give shard optimizer")
        return said.pop()

    def _follow(self, wanted: Pass) -> None:
        """Gather for others what a pass needs, in the order in which they do."""
        component = next(name for name, one in self._passes.items() if one is wanted)
        self._turn(f"{component}:")
        if wanted.known:
            for name in wanted.turns:
                self._turn(name)
        else:
            while (number := self._agree(NOBODY)) != END:
                name = self._names[int(number)]
                wanted.turns.append(name)
                self._turn(name)
            wanted.known = True
        self.end()


def super_gather(world: TorchWorld) -> Exchange:
    """`gather` of the world itself, even where another one stands before it."""

    def exchange(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return TorchWorld.gather(world, values)

    return exchange


@dataclass(frozen=True)
class Together(TorchWorld):
    """A world whose ranks, wherever they wait for each other, join in what is still computed elsewhere."""

    serve: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, world: TorchWorld, serve: Callable[[], None]) -> Together:
        return cls(world.rank, world.local_rank, world.size, world.hosts, world.asks_every, serve)

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        self.serve()
        return super().gather(values)

    def broadcast(self, value: str) -> str:
        self.serve()
        return super().broadcast(value)
