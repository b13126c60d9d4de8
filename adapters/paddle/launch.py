"""The processes of a run: one alone, or those that paddle.distributed.launch started."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from numpy.typing import NDArray

from dreamcore.backends.bucketing import BUCKET_BYTES, in_buckets
from dreamcore.backends.launching import all_alive
from dreamcore.backends.protocol import Solo, World
from dreamcore.errors import ConfigError


@dataclass(frozen=True)
class PaddleWorld:
    """Processes joined by paddle.distributed; what they tell each other here goes from host to host (gloo)."""

    rank: int
    local_rank: int
    size: int
    hosts: Any
    """Paddle's group."""
    asks_every: int = 1

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        if not values.size:  # gloo would divide by that
            return [values] * self.size
        mine = _on_host(values)
        parts = [_on_host(np.empty_like(values)) for _ in range(self.size)]
        with all_alive():
            dist.all_gather(parts, mine, group=self.hosts)
        return [part.numpy() for part in parts]

    def broadcast(self, value: str) -> str:
        letters = np.frombuffer(value.encode(), np.uint8).astype(np.int32)
        length = _on_host(np.array([letters.size], np.int64))
        with all_alive():
            dist.broadcast(length, src=0, group=self.hosts)
            size = int(length.item())
            tensor = _on_host(letters if self.rank == 0 else np.zeros(size, np.int32))
            if size:
                dist.broadcast(tensor, src=0, group=self.hosts)
        return bytes(tensor.numpy().astype(np.uint8)).decode()

    def send(self, array: NDArray[np.float32]) -> None:
        with all_alive():
            dist.send(_on_host(np.asarray(array, np.float32)), 0, group=self.hosts)

    def receive(self, shape: Sequence[int], source: int) -> NDArray[np.float32]:
        made = _on_host(np.empty(tuple(shape), np.float32))
        with all_alive():
            dist.recv(made, source, group=self.hosts)
        return np.asarray(made.numpy())

    def barrier(self) -> None:
        self.gather(np.zeros(1))


def _on_host(array: NDArray[Any]) -> paddle.Tensor:
    return paddle.to_tensor(np.ascontiguousarray(array), place=paddle.CPUPlace())


def choose_device(name: str | None) -> str:
    """The device of this process, which Paddle then uses throughout; `cuda` is understood as Paddle's `gpu`.

    Raises:
        ConfigError: a device that Paddle does not have.
    """
    cards = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if name is None:
        name = "gpu" if cards else "cpu"
    match = re.fullmatch(r"cpu|(?:gpu|cuda)(?::(\d+))?", name)
    if match is None:
        raise ConfigError(f"device: {name!r} is not known to Paddle; expected cpu, gpu or gpu:NUMBER")
    if name == "cpu":
        return str(paddle.device.set_device("cpu") and "cpu")
    if match[1] and (size := dist.ParallelEnv().world_size) > 1:
        raise ConfigError(f"device: {name!r} names one device for all {size} processes; expected gpu or cpu")
    index = int(match[1]) if match[1] else dist.ParallelEnv().device_id if cards else 0
    if index >= cards:
        has = f"{cards} GPU" if cards else "no GPU, or is built without CUDA"
        raise ConfigError(f"device: {name!r} cannot be used: this Paddle has {has}")
    paddle.device.set_device(f"gpu:{index}")
    return f"gpu:{index}"


def join_world(device: str) -> World:
    """The world that the launcher's environment describes.

    Which library sums the gradients follows from the device, whatever the launcher was told: with gloo, which it takes
    for a wish to compute on the CPU, Paddle leaves GPUs alone.
    """
    environment = dist.ParallelEnv()
    if environment.world_size == 1:
        return Solo()
    if not dist.is_initialized():
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo" if device == "cpu" else "nccl"
        dist.init_parallel_env()
        paddle.device.set_device(device)  # which that settles anew
    local = int(os.environ.get("PADDLE_LOCAL_RANK", "0"))
    hosts = dist.new_group(backend="gloo")
    return PaddleWorld(environment.rank, local, environment.world_size, hosts)


def check_log_folder(output: str) -> None:
    """Keep the launcher's log folder, which holds the whole environment with its tokens, out of what is published.

    Raises:
        ConfigError: it lies inside the run folder.
    """
    logs, folder = os.environ.get("PADDLE_LOG_DIR"), Path(output).expanduser().resolve()
    if logs and Path(logs).resolve().is_relative_to(folder):
        raise ConfigError(
            f"output_dir: {folder} holds {logs}, where paddle.distributed.launch writes the whole environment, tokens "
            "included; give the launcher a --log_dir elsewhere and remove that folder"
        )


@paddle.no_grad()
def sum_gradients(parameters: Sequence[paddle.Tensor]) -> None:
    """Replace every gradient by its sum over all ranks, in buckets."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    for bucket in in_buckets(gradients, lambda g: g.size * g.element_size(), BUCKET_BYTES):
        flat = paddle.concat([g.flatten() for g in bucket])
        with all_alive():
            dist.all_reduce(flat)
        for gradient, summed in zip(bucket, paddle.split(flat, [g.size for g in bucket]), strict=True):
            paddle.assign(summed.reshape(gradient.shape), gradient)
