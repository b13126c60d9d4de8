"""What goes from rank to rank where the optimizer's state is shared out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from dreamcore.backends.launching import all_alive

from .launch import share_tensors, sum_tensors_for


class Wires:
    """Of `backends.sharding`."""

    def add_up(self, weights: Sequence[torch.Tensor], owner: int) -> None:
        sum_tensors_for([p.grad for p in weights if p.grad is not None], owner)
        if owner != dist.get_rank():
            for weight in weights:
                weight.grad = None

    @torch.no_grad()
    def hand_out(self, weights: Sequence[torch.Tensor], owner: int) -> None:
        share_tensors([p.detach() for p in weights], owner)

    def norm(self, own: torch.Tensor) -> torch.Tensor:
        squared = own.double().square()
        with all_alive():
            dist.all_reduce(squared)
        return squared.sqrt().to(own.dtype)


def shared_scaler(device: torch.device) -> torch.amp.GradScaler:
    """fp16's loss scale where an overflow in one rank's share is one of all."""
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    return ShardedGradScaler(device.type)
