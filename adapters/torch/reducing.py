"""Gradients on their way to other ranks while the backward pass goes on: in buckets, as they are made.

All ranks make them in the same order, for the passes are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from dreamcore.backends.bucketing import BUCKET_BYTES
from dreamcore.backends.launching import all_alive

from .precision import DTYPES

FLYING = 2
"""Buckets that are on their way at most: each takes `BUCKET_BYTES` beside the gradients."""
Take = Callable[[torch.Tensor, torch.Tensor], None]
"""What a weight's gradient, added up over ranks, is given to."""
Of = Callable[[torch.Tensor], torch.Tensor | None]
"""This rank's gradient of a weight."""


@dataclass
class _Flight:
    """Gradients that are being added up."""

    work: Any
    flat: torch.Tensor
    weights: Sequence[torch.Tensor]
    """Whose sums this rank is to have; none where they are another's."""


class Reducer:
    """Adds up the gradients of weights over ranks.

    Args:
        weights: that train.
        owners: the rank that has the sum for each weight, while the others then have no gradient; None: all have it.
        hook: of `ddp_comm_hook`: bf16 adds up in that.
        take: is given the sums, in float32; without it they take the gradients' place.
        each: add up after each pass; otherwise after the one that `last` announces.
        of: what is added up, where that is not the weight's own gradient alone.
    """

    def __init__(
        self,
        weights: Sequence[torch.nn.Parameter],
        owners: Mapping[torch.Tensor, int] | None = None,
        hook: str = "no",
        take: Take | None = None,
        *,
        each: bool = False,
        of: Of = lambda weight: weight.grad,
    ):
        self._weights, self._owners, self._take = list(weights), owners, take
        self._dtype = None if hook == "no" else DTYPES[hook]
        self._each, self._of = each, of
        self._armed = each
        self._pending: list[torch.Tensor] = []
        self._bytes = 0
        self._sent = set[torch.Tensor]()
        self._flying = deque[list[_Flight]]()
        for weight in weights:
            weight.register_post_accumulate_grad_hook(self._arrived)

    def last(self) -> None:
        """The pass that follows is the update's last: what it adds to is complete."""
        self._armed = True

    def finish(self) -> None:
        """The pass is over: what is on its way arrives, and what it did not add to goes too."""
        if not self._armed:
            return
        for weight in self._weights:
            if weight not in self._sent and self._of(weight) is not None:
                self._add(weight)
        self._flush()
        while self._flying:
            self._land()
        self._sent.clear()
        self._armed = self._each

    def _arrived(self, weight: torch.Tensor) -> None:
        if self._armed:
            self._add(weight)

    def _add(self, weight: torch.Tensor) -> None:
        self._pending.append(weight)
        self._sent.add(weight)
        self._bytes += weight.numel() * weight.element_size()
        if self._bytes >= BUCKET_BYTES:
            self._flush()

    @torch.no_grad()
    def _flush(self) -> None:
        pending, self._pending, self._bytes = self._pending, [], 0
        if not pending:
            return
        if self._owners is None:
            flights = [self._fly(pending, None)]
        else:
            theirs = dict[int, list[torch.Tensor]]()
            for weight in pending:
                theirs.setdefault(self._owners[weight], []).append(weight)
            flights = [self._fly(theirs[owner], owner) for owner in sorted(theirs)]
        self._flying.append(flights)
        while len(self._flying) > FLYING:
            self._land()

    def _fly(self, weights: Sequence[torch.Tensor], owner: int | None) -> _Flight:
        """Add up these weights' gradients, for one rank or for all."""
        dtype = self._dtype or (torch.float32 if self._take else None)
        own = [self._own(weight) for weight in weights]
        flat = torch.cat([gradient.reshape(-1).to(dtype or gradient.dtype) for gradient in own])
        with all_alive():
            work = dist.all_reduce(flat, async_op=True) if owner is None else dist.reduce(flat, owner, async_op=True)
        mine = owner is None or owner == dist.get_rank()
        if self._take or not mine:
            for weight in weights:
                weight.grad = None
        return _Flight(work, flat, weights if mine else [])

    @torch.no_grad()
    def _land(self) -> None:
        for flight in self._flying.popleft():
            with all_alive():
                flight.work.wait()
            if not flight.weights:
                continue
            parts = flight.flat.split([weight.numel() for weight in flight.weights])
            shaped = [part.view(weight.shape) for part, weight in zip(parts, flight.weights, strict=True)]
            if self._take is None:
                torch._foreach_copy_([self._own(weight) for weight in flight.weights], shaped)
                continue
            for weight, part in zip(flight.weights, shaped, strict=True):
                self._take(weight, part.float())

    def _own(self, weight: torch.Tensor) -> torch.Tensor:
        gradient = self._of(weight)
        assert gradient is not None
        return gradient
