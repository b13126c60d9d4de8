"""What goes from rank to rank where the optimizer's state is shared out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from dreamcore.backends.launching import all_alive

from .launch import share_tensors
from .reducing import Reducer


class Wires:
    """Of `backends.sharding`.

    Args:
        reducer: of the gradients, for their weights' keepers.
    """

    def __init__(self, reducer: Reducer):
        self._reducer = reducer

    def add_up(self, shares: Sequence[Sequence[torch.Tensor]]) -> None:
        self._reducer.last()
        self._reducer.finish()

    @torch.no_grad()
    def hand_out(self, weights: Sequence[torch.Tensor], owner: int) -> None:
        share_tensors([p.detach() for p in weights], owner)

    def norm(self, own: torch.Tensor) -> torch.Tensor:
        return norm_over_ranks(own)


def norm_over_ranks(own: torch.Tensor) -> torch.Tensor:
    """The norm over all ranks' shares, of whose norms this is one."""
    squared = own.double().square()
    with all_alive():
        dist.all_reduce(squared)
    return squared.sqrt().to(own.dtype)


class SharedScaler(torch.amp.GradScaler):
    """fp16's loss scale where an overflow in one rank's share is one of all.

    PyTorch's own of that kind (`ShardedGradScaler`) finds overflows in a shape that fused AdamW does not take.
    """

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        super().unscale_(optimizer)
        if not self.is_enabled():
            return
        for found in self._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values():
            with all_alive():
                dist.all_reduce(found)
