"""The processes of a run: one alone, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dreamcore.backend import Solo, World
from dreamcore.errors import ConfigError

TIMEOUT = timedelta(minutes=10)
"""A rank that is not heard of for so long ends the run."""
BUCKET_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TorchWorld:
    """Processes joined by torch.distributed."""

    rank: int
    local_rank: int
    size: int
    device: torch.device

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        mine = torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine)
        return [part.cpu().numpy() for part in parts]

    def broadcast(self, value: str) -> str:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        dist.barrier()


def choose_device(name: str | None) -> torch.device:
    """The device of this process.

    Raises:
        ConfigError: a device that torch does not have.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name is None:
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"device: {name!r} cannot be used by this torch ({first})") from None
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local)
    return device


def join_world(device: torch.device) -> World:
    """The world that the launcher's environment describes."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Solo()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    return TorchWorld(dist.get_rank(), int(os.environ.get("LOCAL_RANK", "0")), size, device)


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace every gradient by its sum over all ranks, in buckets."""
    for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat)
        offset = 0
        for gradient in bucket:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterable[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
