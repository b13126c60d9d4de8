"""Weights whose originals in float32, and the optimizer's state of them, lie in the host's memory, updated there.

What networks compute with are copies on the device (leaves), in the precision of the arithmetic.  A gradient leaves the
device as soon as the backward pass has made it, so that never many of them lie there; the norm over all of them is
known before the first weight moves, so that clipping is exact.  Then the originals (masters) are updated bucket by
bucket, and their values go back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dreamcore.backends.bucketing import BUCKET_BYTES, in_buckets
from dreamcore.backends.protocol import World

from .launch import sum_tensors
from .masters import STAYS, MakeOptimizer, Masters
from .models import Named
from .slabs import Copying, host_slab, size_of, views
from .store import Place, Store

GRADIENTS = "gradients"
"""What the store calls those that are on the device."""
STAGED = "gradients, then weights, on their way"


@dataclass(eq=False)
class Leaf:
    """A weight that trains."""

    index: int
    weight: torch.nn.Parameter
    """What the network computes with, on the device."""
    master: torch.nn.Parameter
    """Its original; the weight itself where it lies on the device in float32."""
    place: Place
    """Where the original and its optimizer's state lie."""
    staged: torch.Tensor
    """Its part of the host's memory for what is on its way; empty for those on the device."""
    total: torch.Tensor | None = None
    """The gradient of the update so far, in float32, where it is kept."""
    came: bool = False
    """Whether there is a gradient in this update."""
    fresh: bool = False
    """Whether there is one of this micro-batch."""


@dataclass(frozen=True)
class Manner:
    """How a run goes about it.

    Args:
        share: of the numbers whose masters lie on the host.
        dtype: of the leaves; None: as they are.
        from_host: whether the weights were loaded into the host's memory.
        accumulates: whether an update has several micro-batches.
        fused: whether a weight is updated as soon as its gradient is there.
        travels: the type in which gradients are added up over ranks.
    """

    share: float
    dtype: torch.dtype | None
    from_host: bool
    accumulates: bool
    fused: bool
    travels: torch.dtype = torch.float32


class Offloaded(Masters):
    """Masters on the host, or some of them.

    Args:
        parameters: what networks compute with, by component, then by COMPONENT.PARAMETER as published.
        make: the optimizer of the masters.
    """

    def __init__(
        self, parameters: Mapping[str, Named], make: MakeOptimizer, store: Store, world: World, manner: Manner
    ):
        self.store, self._world, self._manner = store, world, manner
        self._copying = Copying(store.device)
        self.leaves: list[Leaf] = []
        masters = {component: dict(self._take(component, named)) for component, named in parameters.items()}
        self._stage()
        self.inner = make(masters)
        self.lr: Mapping[str, float] = {}
        """The next update's, where weights are updated in the backward pass."""
        self._norms = torch.zeros(len(self.leaves), device=store.device)
        self._pending: list[tuple[Leaf, torch.Tensor]] = []
        self._pending_bytes = 0
        self._limit = BUCKET_BYTES if world.size > 1 or manner.fused else 0
        self._worker = ThreadPoolExecutor(1) if manner.fused and manner.share else None
        self._working: list[Future[None]] = []
        for leaf in self.leaves:
            leaf.weight.register_post_accumulate_grad_hook(partial(self._arrived, leaf))

    def load(self, folder: Path) -> None:
        super().load(folder)
        self._count_state()

    @contextmanager
    def originals(self) -> Iterator[None]:
        rounded = [leaf.weight.data for leaf in self.leaves]
        try:
            for leaf in self.leaves:
                leaf.weight.data = leaf.master.data.to(self.store.device)
            yield
        finally:
            for leaf, data in zip(self.leaves, rounded, strict=True):
                leaf.weight.data = data

    # The masters

    def _take(self, component: str, named: Named) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Make masters and leaves of weights; of those, the last ones' masters lie on the host, for their gradients are
        there first."""
        store, count = self.store, sum(weight.numel() for weight in named.values())
        stays, seen = round(count * (1 - self._manner.share)), 0
        for name, weight in named.items():
            if name.endswith(STAYS):
                master = self._in_place(weight)
                self.leaves.append(Leaf(len(self.leaves), weight, master, "device", torch.empty(0)))
                yield name, master
                continue
            place: Place = "device" if seen < stays else "host"
            seen += weight.numel()
            dtype = self._manner.dtype or weight.dtype
            loaded = weight.data
            store.keep(loaded, "host" if self._manner.from_host else "device", component)
            if place == "device" and dtype is torch.float32:
                if self._manner.from_host:
                    weight.data = store.copy(loaded, "device", component)
                master = self._in_place(weight)
            else:
                there = place == "host" and self._manner.from_host
                master = torch.nn.Parameter(loaded if there else store.copy(loaded, place, component))
                weight.data = store.copy(loaded, "device", component, dtype)
            self.leaves.append(Leaf(len(self.leaves), weight, master, place, torch.empty(0)))
            yield name, master

    def _in_place(self, weight: torch.nn.Parameter) -> torch.nn.Parameter:
        """The weight as its own master; where updates are made aside, one in its memory with a gradient of its own, for
        they must not see a gradient that the backward pass has just made and nobody has taken."""
        aside = self._manner.fused and self._manner.share
        return torch.nn.Parameter(weight.data) if aside else weight

    def _stage(self) -> None:
        """Memory of the host for gradients on their way there, and for weights on their way back."""
        hosted = [leaf for leaf in self.leaves if leaf.place == "host"]
        weights = [leaf.weight.data for leaf in hosted]
        slab = host_slab(size_of(weights), self.store.device)
        self.store.keep(slab, "host", STAGED)
        for leaf, part in zip(hosted, views(slab, weights), strict=True):
            leaf.staged = part

    @torch.no_grad()
    def publish(self, leaves: Sequence[Leaf] | None = None) -> None:
        """Let networks compute with what the masters now are."""
        if leaves is None:
            self._copying.finish()  # what is on its way from there
        for leaf in self.leaves if leaves is None else leaves:
            if leaf.place == "host":
                leaf.staged.copy_(leaf.master)
            elif leaf.master.data_ptr() != leaf.weight.data_ptr():
                leaf.weight.copy_(leaf.master)
        with self._copying.aside():
            for leaf in self.leaves if leaves is None else leaves:
                if leaf.place == "host":
                    leaf.weight.copy_(leaf.staged, non_blocking=True)
        self._copying.wait_for()

    # Gradients on their way

    def _arrived(self, leaf: Leaf, weight: torch.Tensor) -> None:
        """A gradient is made: it leaves, alone or, where ranks add theirs up, with others."""
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        self._pending.append((leaf, self.store.keep(gradient, "device", GRADIENTS)))
        self._pending_bytes += gradient.nbytes
        del gradient
        if self._pending_bytes >= self._limit:
            self._flush()

    @torch.no_grad()
    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if self._world.size > 1:
            pending = [(leaf, gradient.to(self._manner.travels)) for leaf, gradient in pending]
            sum_tensors([gradient for _, gradient in pending])
        if not self._manner.accumulates:
            for leaf, gradient in pending:
                self._norms[leaf.index] = torch.linalg.vector_norm(gradient, dtype=torch.float32)
        for leaf, gradient in pending:
            leaf.came = leaf.fresh = True
            if leaf.place == "device":
                leaf.total = gradient.float() if leaf.total is None else leaf.total.add_(gradient)
        with self._copying.aside():
            for leaf, gradient in pending:
                if leaf.place == "host":
                    leaf.staged.copy_(gradient, non_blocking=True)
                    self._copying.lent(gradient)
        self._copying.hold_back(sum(leaf.staged.nbytes for leaf, _ in pending))
        if self._manner.fused:
            self._move([leaf for leaf, _ in pending])

    def end_pass(self) -> None:
        """A micro-batch's backward pass is over."""
        self._flush()
        if self._manner.accumulates:
            self._copying.finish()
            for leaf in self.leaves:
                if leaf.place == "host" and leaf.fresh:
                    if leaf.total is None:
                        leaf.total = self.store.keep(leaf.staged.to(torch.float32, copy=True), "host", GRADIENTS)
                    else:
                        leaf.total.add_(leaf.staged)
        for leaf in self.leaves:
            leaf.fresh = False

    # The update

    def step(self, lr: Mapping[str, float]) -> torch.Tensor:
        """Clip and update from the gradients; returns their norm [], on the device."""
        came = [leaf for leaf in self.leaves if leaf.came]
        if self._manner.fused:
            for one in self._working:
                one.result()
            self._working.clear()
            norm = self._norm(came)
        elif self.inner.scales or not self.inner.splits:
            self._copying.finish()
            self._give(came)
            norm = self.inner.step(lr)
            self.publish(came)
        else:
            self._copying.finish()
            norm = self._norm(came)
            for bucket in in_buckets(came, lambda leaf: leaf.master.numel() * 4, BUCKET_BYTES):
                self._update(bucket, lr, norm)
        for leaf in came:
            leaf.came, leaf.total = False, None
        self._count_state()
        return norm.to(self.store.device)

    def _norm(self, came: Sequence[Leaf]) -> torch.Tensor:
        if self._manner.accumulates:
            return torch.nn.utils.get_total_norm([leaf.total for leaf in came if leaf.total is not None])
        norm = torch.linalg.vector_norm(self._norms[[leaf.index for leaf in came]])
        return norm.cpu() if self._manner.share else norm

    @staticmethod
    def _give(leaves: Sequence[Leaf]) -> None:
        """Let masters have their gradients, in float32."""
        for leaf in leaves:
            leaf.master.grad = leaf.total if leaf.total is not None else leaf.staged.float()
            leaf.total = None

    def _update(self, leaves: Sequence[Leaf], lr: Mapping[str, float], norm: torch.Tensor) -> None:
        self._give(leaves)
        self.inner.step(lr, norm)
        self.publish(leaves)

    def _move(self, leaves: list[Leaf]) -> None:
        """Update some weights in the middle of the backward pass, which needs these no more."""
        if self._worker is None:
            self._update(leaves, self.lr, self._norms[0])
            return
        mark = self._copying.mark()
        self._working.append(self._worker.submit(self._move_aside, leaves, mark))

    @torch.no_grad()
    def _move_aside(self, leaves: list[Leaf], mark: Any) -> None:
        if mark is not None:
            mark.synchronize()
        self._update(leaves, self.lr, self._norms[0])

    def _count_state(self) -> None:
        for leaf, state in zip(self.leaves, self.inner.states([leaf.master for leaf in self.leaves]), strict=True):
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    self.store.keep(value, leaf.place, "optimizer state")
