"""The processes of a run: one alone, or those that torchrun started."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dreamcore.backends.bucketing import BUCKET_BYTES, in_buckets
from dreamcore.backends.launching import all_alive
from dreamcore.backends.protocol import Solo, World
from dreamcore.errors import ConfigError

TIMEOUT = timedelta(minutes=10)
"""For joining, and for gradients: in the middle of training all ranks are in step."""
PATIENCE = timedelta(hours=12)
"""For everything else: rank 0 may be making images or waiting for another run.  A rank that dies is noticed at once
all the same, for its connections close."""


@dataclass(frozen=True)
class TorchWorld:
    """Processes joined by torch.distributed; what they tell each other here goes from host to host (gloo)."""

    rank: int
    local_rank: int
    size: int
    hosts: dist.ProcessGroup
    asks_every: int = 1

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        mine = torch.from_numpy(np.ascontiguousarray(values))
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        with all_alive():
            dist.all_gather(parts, mine, group=self.hosts)
        return [part.numpy() for part in parts]

    def broadcast(self, value: str) -> str:
        box = [value]
        with all_alive():
            dist.broadcast_object_list(box, src=0, group=self.hosts, device=torch.device("cpu"))
        return box[0]

    def send(self, array: NDArray[np.float32]) -> None:
        with all_alive():
            dist.send(torch.from_numpy(np.ascontiguousarray(array, np.float32)), 0, group=self.hosts)

    def receive(self, shape: Sequence[int], source: int) -> NDArray[np.float32]:
        made = torch.empty(tuple(shape))
        with all_alive():
            dist.recv(made, source, group=self.hosts)
        return made.numpy()

    def barrier(self) -> None:
        self.gather(np.zeros(1))  # torch's own barrier warns unless every rank owns a device


def choose_device(name: str | None) -> torch.device:
    """The device of this process.

    Raises:
        ConfigError: a device that torch does not have, or one for several processes.
    """
    local, size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local)
        elif size > 1 and device.type != "cpu":
            raise ConfigError(f"device: {name!r} names one device for all {size} processes; expected cuda or cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # or libraries open a context, and half a gigabyte, on the first card too
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"device: {name!r} cannot be used by this torch ({first})") from None
    return device


def join_world(device: torch.device) -> World:
    """The world that the launcher's environment describes."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Solo()
    with all_alive():
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
            atexit.register(dist.destroy_process_group)
        hosts = dist.new_group(backend="gloo", timeout=PATIENCE)
    return TorchWorld(dist.get_rank(), int(os.environ.get("LOCAL_RANK", "0")), size, hosts)


def joined(world: World) -> TorchWorld:
    """The world of several processes, which it is."""
    assert isinstance(world, TorchWorld)
    return world


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace every gradient by its sum over all ranks, in buckets."""
    sum_tensors([p.grad for p in parameters if p.grad is not None])


def sum_tensors(tensors: Sequence[torch.Tensor]) -> None:
    """Replace tensors by their sums over all ranks, in buckets."""
    for bucket in _buckets(tensors):
        flat = _joined(bucket)
        with all_alive():
            dist.all_reduce(flat)
        _cut(flat, bucket)


def share_tensors(tensors: Sequence[torch.Tensor], owner: int) -> None:
    """Replace every rank's tensors by one rank's, in buckets."""
    for bucket in _buckets(tensors):
        flat = _joined(bucket)
        with all_alive():
            dist.broadcast(flat, owner)
        if dist.get_rank() != owner:
            _cut(flat, bucket)


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    return in_buckets(tensors, lambda t: t.numel() * t.element_size(), BUCKET_BYTES)


def _joined(bucket: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.reshape(-1) for t in bucket])


def _cut(flat: torch.Tensor, bucket: list[torch.Tensor]) -> None:
    """`_joined` undone."""
    parts = flat.split([t.numel() for t in bucket])
    torch._foreach_copy_(bucket, [part.view_as(t) for part, t in zip(parts, bucket, strict=True)])
