"""Weights in float32 (masters) beside what networks compute with (leaves), in the precision of the arithmetic.

The optimizer updates masters, and its pass ends by writing leaves; files, averages and judges see masters alone.  So
weights are rounded once an update, and not once a pass, and networks need no autocasting (`casting.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamcore.backends.bucketing import BUCKET_BYTES, in_buckets

from .models import Named
from .optim import Optimizer
from .reducing import Reducer
from .store import Store

STAYS = ".new_words"
"""Ends of the names of what is small, and changed besides by others: it stays as it is."""
MakeOptimizer = Callable[[Mapping[str, Named]], Optimizer]


class Masters(ABC):
    """`Optimizer` of masters; where they lie, and how gradients come to them, is a subclass's."""

    inner: Optimizer

    @property
    def named(self) -> Named:
        """The masters, by published name."""
        return self.inner.named

    @property
    def scales(self) -> bool:
        return self.inner.scales

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return self.inner.scaled(loss)

    def rate_factor(self) -> Any:
        """What the optimizer multiplies the learning rate by, on the device, where it finds that itself."""
        return self.inner.rate_factor()

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Let the weights be those that are judged and used, for a while."""
        with self.inner.judged():
            if self.inner.rule.averages:
                self.publish()
            yield
        if self.inner.rule.averages:
            self.publish()

    def save(self, folder: Path) -> None:
        self.inner.save(folder)

    def load(self, folder: Path) -> None:
        self.inner.load(folder)

    @abstractmethod
    def publish(self) -> None:
        """Let networks compute with what the masters now are."""

    @abstractmethod
    def end_pass(self) -> None:
        """A micro-batch's backward pass is over."""

    @abstractmethod
    def step(self, lr: Mapping[str, float]) -> torch.Tensor:
        """Clip and update from the gradients; returns their norm [], on the device."""

    @abstractmethod
    @contextmanager
    def originals(self) -> Iterator[None]:
        """Let networks compute with the masters themselves for a while, in float32."""


class Pair(NamedTuple):
    """A weight that trains."""

    leaf: torch.nn.Parameter
    master: torch.nn.Parameter


class Beside(Masters):
    """Masters on the device, beside their leaves.

    Gradients come in the leaves' type and go to the masters in float32, bucket by bucket, so that never all of them are
    there twice; those of several micro-batches add up there.

    Args:
        parameters: what networks compute with, by component, then by COMPONENT.PARAMETER as published.
        make: the optimizer of the masters.
        dtype: of the leaves.
    """

    def __init__(self, parameters: Mapping[str, Named], make: MakeOptimizer, store: Store, dtype: torch.dtype):
        self._reducer: Reducer | None = None
        self._pairs: list[Pair] = []
        masters = dict[str, dict[str, torch.nn.Parameter]]()
        for component, named in parameters.items():
            masters[component] = {
                name: weight if name.endswith(STAYS) else self._beside(weight, component, store, dtype)
                for name, weight in named.items()
            }
        self.inner = make(masters)

    def _beside(
        self, weight: torch.nn.Parameter, component: str, store: Store, dtype: torch.dtype
    ) -> torch.nn.Parameter:
        master = torch.nn.Parameter(store.keep(weight.data, "device", component))
        weight.data = store.copy(master, "device", component, dtype)
        self._pairs.append(Pair(weight, master))
        return master

    @torch.no_grad()
    def publish(self) -> None:
        torch._foreach_copy_([pair.leaf for pair in self._pairs], [pair.master for pair in self._pairs])

    @torch.no_grad()
    def end_pass(self) -> None:
        came = [pair for pair in self._pairs if pair.leaf.grad is not None]
        for bucket in in_buckets(came, lambda pair: pair.master.numel() * 4, BUCKET_BYTES):
            wide = [torch.empty_like(pair.master) for pair in bucket]
            torch._foreach_copy_(wide, [pair.leaf.grad for pair in bucket])
            more = [
                (pair.master.grad, one) for pair, one in zip(bucket, wide, strict=True) if pair.master.grad is not None
            ]
            if more:
                torch._foreach_add_([total for total, _ in more], [one for _, one in more])
            for pair, one in zip(bucket, wide, strict=True):
                pair.leaf.grad = None
                if pair.master.grad is None:
                    pair.master.grad = one

    def reduced(self, hook: str) -> Reducer:
        """Have gradients added up over ranks, in this manner (`ddp_comm_hook`), while an update's last pass makes
        them."""
        masters = {id(leaf): master for leaf, master in self._pairs}
        leaves = [pair.leaf for pair in self._pairs]
        others = [weight for weight in self.inner.all if all(weight is not one for one in masters.values())]

        def total(weight: torch.Tensor) -> torch.Tensor | None:
            before = masters[id(weight)].grad if id(weight) in masters else None
            if before is None or weight.grad is None:
                return weight.grad if before is None else before
            return before + weight.grad

        def take(weight: torch.Tensor, sums: torch.Tensor) -> None:
            masters.get(id(weight), weight).grad = sums

        self._reducer = Reducer([*leaves, *others], hook=hook, take=take, of=total)
        return self._reducer

    def step(self, lr: Mapping[str, float]) -> torch.Tensor:
        if self._reducer is not None:
            self._reducer.last()
            self._reducer.finish()
        norm = self.inner.step(lr)
        self.publish()
        return norm

    @contextmanager
    def originals(self) -> Iterator[None]:
        rounded = [pair.leaf.data for pair in self._pairs]
        try:
            for leaf, master in self._pairs:
                leaf.data = master.data
            yield
        finally:
            for pair, data in zip(self._pairs, rounded, strict=True):
                pair.leaf.data = data
