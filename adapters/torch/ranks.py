"""A run's several ranks: who keeps what, and gradients that are added up while they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dreamcore.backends.base import BaseBackend
from dreamcore.backends.protocol import Batch
from dreamcore.backends.sharding import Sharded
from dreamcore.config import TrainConfig
from dreamcore.formats.weights import component_file, save_entries
from dreamcore.placement.shards import share_out

from . import models
from .full_sharding import FullySharded, not_mine, share_weights, sizes
from .gathering import Gathering, Together
from .launch import joined
from .masters import Beside, Masters
from .models import Named
from .optim import Optimizer
from .reducing import Reducer
from .sharding import SharedScaler, Wires
from .store import Store

Made = TypeVar("Made", bound=Optimizer | Masters)


class OverRanks(BaseBackend[torch.Tensor]):
    """What of a backend several ranks do together; nothing of it acts in a run of one process."""

    device: torch.device
    store: Store
    _owners: Mapping[str, int] | None = None
    """Who keeps which weight of the networks of training's pass, by COMPONENT.PARAMETER; None where all keep all."""
    _gathering: Gathering | None = None
    _reducer: Reducer | None = None
    _hook = "no"
    """Of `ddp_comm_hook`."""
    _left = 0
    """Passes of this update that are still to come."""
    _preserving: Sequence[bool] = ()
    """Of the passes that are still to come, whether a rank asks the network for its own answer first."""

    def component(self, name: str) -> models.Component:
        """A component as PyTorch holds it."""
        part = self.residence.components[name]
        assert isinstance(part, models.Component)
        return part

    # Who keeps what

    def share(self, config: TrainConfig) -> None:
        """Settle who keeps which weights, before any comes: so each reads its own."""
        if config.shard != "full" or self.world.size == 1:
            return
        stored = self._stored
        self._owners = share_out(sizes(stored), self.world.size)
        if config.use_lora and (config.lora_method == "pissa" or config.use_dora or config.init_lora is not None):
            return  # whose first factors are made of whole weights, which go afterwards
        for name in stored:
            self.component(name).elsewhere = not_mine(self._owners, name, self.world.rank)
            self.residence.leave(name)

    @property
    def _stored(self) -> dict[str, Mapping[str, torch.Tensor]]:
        return {name: self.component(name).tensors for name in self._at_work}

    def shared_optimizer(
        self, parameters: Mapping[str, Named], config: TrainConfig
    ) -> FullySharded | Sharded[torch.Tensor] | None:
        """The optimizer, where ranks share it out."""
        self._hook = config.ddp_comm_hook
        if config.shard == "none" or self.world.size == 1:
            return None
        world, whole = joined(self.world), not self._lora and self._owners is not None
        scaler = SharedScaler(self.device.type, enabled=self.dtype is torch.float16)
        make = partial(Optimizer, config=config, scaler=scaler)
        kept = self._gather(parameters, world) if self._owners is not None else {}
        if whole:
            assert self._gathering is not None
            return FullySharded(parameters, kept, self._gathering, make, world, self.store, self._hook)
        named = {name: p for named in parameters.values() for name, p in named.items()}
        shapes = {name: p.shape for name, p in named.items()}
        owners = share_out({name: shape.numel() for name, shape in shapes.items()}, world.size)
        self._reducer = Reducer(list(named.values()), {p: owners[n] for n, p in named.items()}, self._hook)
        return Sharded(parameters, shapes, owners, make, world, Wires(self._reducer))

    def _gather(self, parameters: Mapping[str, Named], world: Any) -> dict[str, Any]:
        """Let networks compute with weights of which each rank keeps its share."""
        assert self._owners is not None
        trained = {} if self._lora else {name: p for named in parameters.values() for name, p in named.items()}
        networks = self._at_work
        components = {name: self.component(name) for name in networks}
        kept, paths = share_weights(networks, components, trained, self._owners, world.rank, self.dtype)
        for name, part in components.items():
            part.elsewhere = not_mine(self._owners, name, world.rank)
        self._gathering = Gathering(networks, paths, world, self.store)
        self.world = Together.of(world, self._gathering.serve)
        return kept

    def reducing(self, optimizer: Made) -> Made:
        """An optimizer of all weights on every rank, whose gradients are added up."""
        if self.world.size > 1 and isinstance(optimizer, Beside):
            self._reducer = optimizer.reduced(self._hook)
        elif self.world.size > 1 and isinstance(optimizer, Optimizer):
            self._reducer = Reducer(optimizer.all, hook=self._hook)
        return optimizer

    def add_up(self) -> None:
        """Have gradients added up over ranks, where the optimizer does not see to it."""
        if self._reducer is not None and isinstance(self.optimizer, Optimizer):
            self._reducer.last()
            self._reducer.finish()

    def shares(self, network: Any) -> bool:
        """Whether a network's weights are shared out, and stay where they are."""
        return self._gathering is not None and any(network is one for one in self._at_work.values())

    # An update

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        self._left = len(micro_batches)
        if self._gathering is None:
            super().train_step(micro_batches, lr)
            return
        idle = self._agree_on_passes(micro_batches)
        with self._gathering.training():
            self._come()
            for _ in range(idle):
                self.backward(replace(micro_batches[0], weight=np.zeros_like(micro_batches[0].weight)))
            super().train_step(micro_batches, lr)

    def _agree_on_passes(self, micro_batches: Sequence[Batch]) -> int:
        """How many passes this rank makes for nothing, while others have more: of photographs of several shapes."""
        counts = [int(one[0]) for one in self.world.gather(np.array([len(micro_batches)], np.float64))]
        idle = max(counts) - len(micro_batches)
        padded = [*[micro_batches[0]] * idle, *micro_batches]
        self._left = len(padded)
        own = np.array([one.preserved is not None for one in padded], np.float64)
        if self._lora is not None:
            own = np.max(self.world.gather(own), axis=0)
        self._preserving = [bool(one) for one in own]
        return idle

    def backward(self, batch: Batch) -> torch.Tensor:
        if self._gathering is not None:
            preserving, *self._preserving = self._preserving
            if preserving and batch.preserved is None:
                with self.inference():
                    self.answer(batch)
        self._left -= 1
        if self._reducer is not None and self._left == 0:
            self._reducer.last()
        return super().backward(batch)

    # Files

    def export(self, folder: Path, *, averaged: bool) -> None:
        own = getattr(self, "optimizer", None)
        if not isinstance(own, FullySharded):
            super().export(folder, averaged=averaged)
            return
        for name in self._trained:
            entries = own.entries(name, self.weights(name), averaged=averaged)
            save_entries(folder / name, self.model.folder(name), entries)

    def load_weights(self, name: str, folder: Path) -> None:
        own = self.optimizer
        if isinstance(own, FullySharded):
            own.fill(name, self.weights(name), component_file(folder))
        else:
            super().load_weights(name, folder)

    @contextmanager
    def saving_notes(self) -> Iterator[None]:
        """Autograd keeps notes of weights that are gathered in place of them."""
        with self._gathering.saving() if self._gathering else nullcontext():
            yield

    def end_gathering(self) -> None:
        """A pass is over: nothing that was gathered is there."""
        if self._gathering is not None:
            self._gathering.end()
