"""The processes of a run: one alone, or those that msrun started."""

from __future__ import annotations

import faulthandler
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.communication import get_group_size, get_rank, init
from numpy.typing import NDArray

from dreamcore.backends.protocol import Solo, World
from dreamcore.errors import ConfigError, RunError

JOIN_SECONDS = 180
"""Time for all processes to find each other; DREAMBOOTH_JOIN_SECONDS sets another."""

UPDATES_BETWEEN_QUESTIONS = 10
"""On Ascend, between one question whether to stop and the next: each waits for the device, and a signal for it."""

ANOTHER_PORT = "if another run is at work there, give msrun another --master_port, or start this by `dreambooth launch`"


@dataclass(frozen=True)
class MindSporeWorld:
    """Processes joined by mindspore.communication: HCCL on Ascend, where all that they tell each other goes through the
    devices, and mccl on a CPU."""

    rank: int
    local_rank: int
    size: int
    asks_every: int = 1

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        if values.size == 0:
            return [values] * self.size  # AllGather fails where there is nothing
        # as pairs of float32: no kernel takes float64, and a number's two halves together lose nothing that matters
        high = values.astype(np.float32)
        low = (values - np.where(np.isfinite(high), high, 0)).astype(np.float32)
        low[~np.isfinite(high)] = 0
        parts = ops.AllGather()(Tensor(np.stack([high, low])[None])).asnumpy().astype(np.float64)
        return [part[0] + part[1] for part in parts]

    def broadcast(self, value: str) -> str:
        text = np.frombuffer(value.encode(), np.uint8).astype(np.float32) if self.rank == 0 else np.zeros(0, np.float32)
        length = _sum(np.array([len(text)], np.float32))
        mine = np.zeros(int(length[0]), np.float32)
        mine[: len(text)] = text
        return bytes(_sum(mine).astype(np.uint8)).decode() if len(mine) else ""

    def barrier(self) -> None:
        _sum(np.zeros(1, np.float32))


def _sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(ops.AllReduce()(Tensor(values)).asnumpy())


def join_world() -> World:
    """The world that msrun's environment describes.

    msrun starts a scheduler beside the workers, from the same command: there, `init` serves the workers until they
    have ended, and ends the process.  Joining waits in C++ without letting Python run, so the time limit is kept by
    a thread that needs no Python: it says where the process stood, and ends it.

    Raises:
        ConfigError: the scheduler's port is taken.
        RunError: the others cannot be reached.
    """
    if int(os.environ.get("MS_WORKER_NUM", "1")) == 1:
        return Solo()
    seconds = int(os.environ.get("DREAMBOOTH_JOIN_SECONDS", str(JOIN_SECONDS)))
    os.environ["MS_TOPO_TIMEOUT"] = str(seconds)  # the scheduler's own limit, 600 where msrun sets it
    address = os.environ.get("MS_SCHED_HOST", "127.0.0.1"), int(os.environ.get("MS_SCHED_PORT", "8118"))
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        _check_port(*address)
    else:
        faulthandler.dump_traceback_later(seconds + 10, exit=True)
    try:
        init()
    except RuntimeError as error:
        what = str(error).strip().splitlines()[0]
        if "timed out node" in what:  # the scheduler's, of workers that it had found
            raise RunError(f"a process of this run has ended or does not answer ({what})") from None
        place = "port {1} of {0}".format(*address)
        raise RunError(
            f"the processes of this run did not find each other at {place} within {seconds} s ({what}); {ANOTHER_PORT}"
        ) from None
    finally:
        faulthandler.cancel_dump_traceback_later()
    on_cpu = ms.get_context("device_target") == "CPU"
    local = int(os.environ.get("DEVICE_ID", "0"))
    return MindSporeWorld(get_rank(), local, get_group_size(), 1 if on_cpu else UPDATES_BETWEEN_QUESTIONS)


def _check_port(host: str, port: int) -> None:
    """Say in words that a port is taken, which MindSpore's scheduler would not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been left will do
        try:
            probe.bind((host, port))
        except OSError as error:
            what = f"port {port} of {host} cannot be used ({error.strerror})"
            raise ConfigError(f"master_port: {what}; {ANOTHER_PORT}") from None


def sum_over_ranks(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Every vector's sum over all ranks."""
    reduce = ops.AllReduce()
    return [reduce(vector) for vector in vectors]
