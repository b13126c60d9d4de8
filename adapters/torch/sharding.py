"""The optimizer's state shared out over ranks (ZeRO's first stage, arXiv 1910.02054): each keeps that of its weights.

All ranks compute with all weights.  Gradients are added up where their weight's state is kept, which is where it is
updated; then its new value goes to everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dreamcore.backends.launching import all_alive
from dreamcore.backends.optimizers import saved_shapes
from dreamcore.backends.sharding import handing_over, whole
from dreamcore.formats.optimizer_state import save_optimizer
from dreamcore.placement.shards import share_out

from .launch import TorchWorld, share_tensors, sum_tensors_for
from .models import Named
from .optim import Optimizer

MakeOptimizer = Callable[[Mapping[str, Named]], Optimizer]


class Sharded:
    """`Optimizer` of which each rank has its share.

    Args:
        parameters: of all ranks, by component, then by COMPONENT.PARAMETER as published.
        make: the optimizer of a share.

    Raises:
        ConfigError: fewer weights than ranks.
    """

    def __init__(self, parameters: Mapping[str, Named], make: MakeOptimizer, world: TorchWorld):
        self._world = world
        self.named: Named = {name: p for named in parameters.values() for name, p in named.items()}
        self.owners = share_out({name: p.numel() for name, p in self.named.items()}, world.size)
        self._shares = [[p for n, p in self.named.items() if self.owners[n] == rank] for rank in range(world.size)]
        self.inner = make(
            {
                component: {name: p for name, p in named.items() if self.owners[name] == world.rank}
                for component, named in parameters.items()
            }
        )
        self.inner.total = _over_ranks
        self.inner.beside = {n: p.shape for n, p in self.named.items() if self.owners[n] != world.rank}

    @property
    def scales(self) -> bool:
        return self.inner.scales

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return self.inner.scaled(loss)

    def rate_factor(self) -> Any:
        return self.inner.rate_factor()

    def judged(self) -> AbstractContextManager[None]:
        return self.inner.judged()

    def step(self, lr: Mapping[str, float]) -> torch.Tensor:
        """Clip and update from the gradients, which are added up over ranks here; returns their norm [], on the
        device."""
        for owner, share in enumerate(self._shares):
            sum_tensors_for([p.grad for p in share if p.grad is not None], owner)
            if owner != self._world.rank:
                for parameter in share:
                    parameter.grad = None
        norm = self.inner.step(lr)
        self._publish()
        return norm

    @torch.no_grad()
    def _publish(self) -> None:
        """Let every rank have the weights of all shares."""
        for owner, share in enumerate(self._shares):
            share_tensors([p.detach() for p in share], owner)

    # Files

    @contextmanager
    def whole_state(self) -> Iterator[None]:
        """Within, rank 0 may save; the others come here at the same time."""
        with handing_over(self._world, self._read):
            yield

    def _read(self, name: str) -> NDArray[np.float32]:
        weight, _, what = name.rpartition(".")
        (state,) = self.inner.states([self.named[weight]])
        kept: NDArray[np.float32] = state[what].detach().cpu().numpy()
        return kept

    def save(self, folder: Path) -> None:
        """Write the state of all ranks, on rank 0, within `whole_state`."""
        counters = self.inner.counters()
        shapes = saved_shapes(self.inner.rule, {name: p.shape for name, p in self.named.items()})
        entries = whole(self._world, shapes, self.owners, self._read) if counters.step else {}
        save_optimizer(folder, entries, counters)

    def load(self, folder: Path) -> None:
        """Read this rank's share of what any number of ranks wrote."""
        self.inner.load(folder)

    def states(self, parameters: Sequence[torch.Tensor]) -> list[Mapping[str, Any]]:
        """What this rank keeps of its parameters."""
        return self.inner.states(parameters)


def _over_ranks(norm: torch.Tensor) -> torch.Tensor:
    """The norm over all shares from that of this one."""
    squared = norm.double().square()
    with all_alive():
        dist.all_reduce(squared)
    return squared.sqrt().to(norm.dtype)


def shared_scaler(device: torch.device) -> torch.amp.GradScaler:
    """fp16's loss scale where an overflow in one rank's share is one of all."""
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    return ShardedGradScaler(device.type)
