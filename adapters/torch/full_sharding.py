"""What trains, shared out over ranks with its gradients and the optimizer's state of it; see `gathering.py`.

A gradient goes to its weight's keeper as soon as the backward pass has made it; there it is clipped by the norm over
all of them, and the original in float32 is updated.  Networks gather the new values when they compute the next time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore.backends.optimizers import saved_shapes
from dreamcore.backends.sharding import handing_over, keepers_of_state, whole
from dreamcore.formats.optimizer_state import save_optimizer
from dreamcore.formats.tensors import Entry, write_tensors
from dreamcore.formats.weights import read_metadata, read_part
from dreamcore.io.names import EMA_FILE

from .ema import EMA
from .gathering import Gathering, Kept
from .launch import TorchWorld
from .masters import MakeOptimizer, Masters
from .models import Component, Named
from .reducing import Reducer
from .sharding import norm_over_ranks
from .store import Store

GRADIENTS = "gradients"
WEIGHT, AVERAGE, STATE = "weight", "average", "state"
"""Kinds of what ranks ask each other for."""


class FullySharded(Masters):
    """Masters of which each rank has its share.

    Args:
        parameters: of all ranks, by component, then by COMPONENT.PARAMETER as published.
        kept: all weights of the networks that are shared out, those that do not train among them, by such names.
        shapes: theirs.
        gathering: what brings them together.
        make: the optimizer of a share.
        world: as it is, not one that joins in: here everyone waits for rank 0 alone.
        hook: of `ddp_comm_hook`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Named],
        kept: Mapping[str, Kept],
        gathering: Gathering,
        make: MakeOptimizer,
        world: TorchWorld,
        store: Store,
        hook: str,
    ):
        self._kept, self._gathering, self._world, self._store = kept, gathering, world, store
        self._trained = {name: tuple(p.shape) for named in parameters.values() for name, p in named.items()}
        self._owners = {name: one.owner for name, one in kept.items()}
        own = {
            component: {name: _parameter(kept[name]) for name in named if kept[name].mine}
            for component, named in parameters.items()
        }
        self.inner = make(own)
        self.inner.total = norm_over_ranks
        self.inner.beside = {name: shape for name, shape in self._trained.items() if not kept[name].mine}
        self.average: SharedEMA | None = None
        masters = {kept[name].parameter: master for name, master in self.inner.named.items()}
        leaves = [weight for named in parameters.values() for weight in named.values()]
        owners: dict[torch.Tensor, int] = {kept[name].parameter: kept[name].owner for name in self._trained}
        self._reducer = Reducer(leaves, owners, hook, partial(self._take, masters), each=True)

    def _take(
        self, masters: Mapping[torch.Tensor, torch.nn.Parameter], weight: torch.Tensor, sums: torch.Tensor
    ) -> None:
        master = masters[weight]
        if master.grad is None:
            master.grad = torch.empty_like(master)
            self._store.keep(master.grad.copy_(sums), "device", GRADIENTS)
        else:
            master.grad.add_(sums)

    # An update

    def end_pass(self) -> None:
        self._reducer.finish()

    def step(self, lr: Mapping[str, float]) -> torch.Tensor:
        norm = self.inner.step(lr)
        for state in self.inner.states(list(self.inner.named.values())):
            for value in state.values():
                if isinstance(value, torch.Tensor) and value.ndim:
                    self._store.keep(value, "device", "optimizer state")
        return norm

    def publish(self) -> None:
        self._gathering.end()

    @contextmanager
    def originals(self) -> Iterator[None]:
        yield  # refused by the configuration

    # Files

    def whole_state(self) -> AbstractContextManager[None]:
        """Within, rank 0 may write; the others come here at the same time."""
        return handing_over(self._world, self._read)

    def _read(self, asked: str) -> NDArray[np.float32]:
        kind, _, name = asked.partition(" ")
        if kind == STATE:
            return self.inner.array(name)
        if kind == AVERAGE:
            assert self.average is not None
            return self.average.array(name)
        return self._kept[name].source.detach().float().cpu().numpy()

    def entries(self, component: str, weights: Named, *, averaged: bool) -> dict[str, Entry]:
        """A network's weights as rank 0 writes them, each fetched when its turn comes.

        Args:
            weights: all that its file has, by published name.
        """
        found, prefix = dict[str, Entry](), f"{component}."
        for name, weight in weights.items():
            full = prefix + name
            if full not in self._kept:
                found[name] = Entry.of(weight.detach().float().cpu().numpy())
                continue
            kind = AVERAGE if averaged and self.average and full in self._trained else WEIGHT
            shapes = {full: tuple(weight.shape)}
            found[name] = whole(self._world, shapes, self._owners.__getitem__, self._read, kind)[full]
        return found

    def averages(self) -> dict[str, Entry]:
        """The averages of all ranks as rank 0 writes them."""
        return whole(self._world, self._trained, self._owners.__getitem__, self._read, AVERAGE)

    def save(self, folder: Path) -> None:
        counters, shapes = self.inner.counters(), saved_shapes(self.inner.rule, self._trained)
        keeper = keepers_of_state(self._owners)
        entries = whole(self._world, shapes, keeper, self._read, STATE) if counters.step else {}
        save_optimizer(folder, entries, counters)

    @torch.no_grad()
    def fill(self, component: str, weights: Named, file: Path) -> None:
        """Read this rank's share of a network's weights from a checkpoint.

        Raises:
            RunError: weights that are missing, left over or of another shape.
        """
        prefix = f"{component}."
        mine = {n: w for n, w in weights.items() if prefix + n not in self._kept or self._kept[prefix + n].mine}
        others = {n: w.shape for n, w in weights.items() if n not in mine}
        arrays = read_part(file, {n: w.shape for n, w in mine.items()}, others, "this model")
        for name, weight in mine.items():
            one = self._kept.get(prefix + name)
            (weight if one is None else one.source).copy_(torch.from_numpy(arrays[name]))


class SharedEMA(EMA):
    """Of this rank's share of what trains."""

    def __init__(self, own: FullySharded, decay: float):
        super().__init__(own.named, decay, own.publish)
        self._own = own
        own.average = self

    def array(self, name: str) -> NDArray[np.float32]:
        """An average of this rank's by its weight's name."""
        return self._averages[list(self._named).index(name)].detach().cpu().numpy()

    def save(self, folder: Path) -> None:
        metadata = {"format": "pt", "updates": str(self._updates)}
        write_tensors(folder / EMA_FILE, self._own.averages(), metadata)

    def load(self, folder: Path) -> None:
        file = folder / EMA_FILE
        arrays = read_part(file, self.shapes(), self._own.inner.beside, "what this run trains")
        self._updates = int(read_metadata(file)["updates"])
        self._averages = self.from_arrays(arrays)


def _parameter(kept: Kept) -> torch.nn.Parameter:
    assert isinstance(kept.master, torch.nn.Parameter)
    return kept.master


def share_weights(
    networks: Mapping[str, torch.nn.Module],
    components: Mapping[str, Component],
    trained: Mapping[str, torch.Tensor],
    owners: Mapping[str, int],
    rank: int,
    dtype: torch.dtype,
) -> tuple[dict[str, Kept], dict[str, dict[str, Kept]]]:
    """What each rank keeps of networks.

    Args:
        components: by name; of those whose weights train all of this rank's are there.
        trained: what trains, by COMPONENT.PARAMETER as published.
        owners: by such names.
        dtype: in which what trains is computed with.

    Returns:
        By such names, and by component and the path within its network.
    """
    named, paths = dict[str, Kept](), dict[str, dict[str, Kept]]()
    for component, network in networks.items():
        places = {id(parameter): path for path, parameter in network.named_parameters()}
        paths[component] = {}
        for published, tensor in components[component].tensors.items():
            if not isinstance(tensor, torch.nn.Parameter) or id(tensor) not in places:
                continue  # a buffer
            name = f"{component}.{published}"
            trains = name in trained
            master = torch.nn.Parameter(tensor.data) if trains and owners[name] == rank else None
            form = components[component].format_of(tensor)
            kept = Kept(tensor, owners[name], rank, master, dtype if trains else tensor.dtype, form)
            named[name] = paths[component][places[id(tensor)]] = kept
    return named, paths


def sizes(stored: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, int]:
    """Numbers of each weight of networks that is shared out, by COMPONENT.PARAMETER as published."""
    return {
        f"{component}.{name}": tensor.numel()
        for component, tensors in stored.items()
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.nn.Parameter)
    }


def not_mine(owners: Mapping[str, int], component: str, rank: int) -> list[str]:
    """Published names of a component's weights that others keep."""
    prefix = f"{component}."
    return [name.removeprefix(prefix) for name, owner in owners.items() if owner != rank and name.startswith(prefix)]
