"""What each process of a distributed test runs: the jobs of a file, one after the other in one world.

`torchrun --nproc_per_node N -m tests.support.ranks JOBS`; JOBS is JSON: a list of arguments of `small_run`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamcore.adapters.torch.full_sharding import GRADIENTS
from dreamcore.adapters.torch.gathering import GATHERED, SHARE
from dreamcore.adapters.torch.store import Store
from dreamcore.training import setup

from .runs import small_run
from .sharded import check_optimizers

LATE = 2.0
"""Seconds within which a busy machine's threads come to their turn."""


def main() -> None:
    backends: list[Any] = []
    job: dict[str, Any] = {}
    load = setup.load_suggested

    def keep(*arguments: Any) -> Any:
        config, backend = load(*arguments)
        backends.append(backend)
        if backend.world.rank == job.get("dying_rank"):
            backend.train_step = dying(backend.train_step)
        return config, backend

    setup.load_suggested = keep
    Store.keep = after_gloo(Store.keep)  # type: ignore[method-assign]
    for job in json.loads(Path(sys.argv[1]).read_text()):
        run = small_run(Path(job["model"]), Path(job["photos"]), Path(job["output"]), **job["settings"])
        sums = np.stack(backends[-1].world.gather(checksums(backends[-1])))
        assert (sums == sums[0]).all(), "every rank ends with the same weights"
        assert run.exit_code == 0
        mine = held(backends[-1])
        everyone = backends[-1].world.gather(np.array(list(mine.values()), np.float64))
        if backends[-1].world.rank == 0:
            by_rank = {name: [int(one[n]) for one in everyone] for n, name in enumerate(mine)}
            Path(f"{job['output']}.held.json").write_text(json.dumps(by_rank))
    check_optimizers(backends[-1].world, Path(f"{sys.argv[1]}.optimizers"))
    print(f"rank {os.environ['RANK']} has done all")


def after_gloo(keep: Callable[..., Any]) -> Callable[..., Any]:
    """`Store.keep` that gives gloo's threads time to let go of blocks that have arrived: on a busy machine they do so
    later than who waited for the blocks.  What is never let go of is counted all the same."""

    def kept(store: Store, tensor: torch.Tensor, place: Any, component: str) -> torch.Tensor:
        most = store.bytes["device", SHARE] * torch.distributed.get_world_size() // 2 if component == GATHERED else 0
        deadline = time.monotonic() + LATE
        while most and store.bytes["device", GATHERED] + tensor.nbytes >= most and time.monotonic() < deadline:
            time.sleep(0.001)
        return keep(store, tensor, place, component)

    return kept


def dying(train_step: Callable[..., None], updates: int = 3) -> Callable[..., None]:
    """`train_step` of a process that is killed in the middle of the update after so many."""
    left = [updates]

    def step(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        train_step(*arguments)

    return step


def checksums(backend: Any) -> np.ndarray:
    """A number for each trained network that changes with any bit of its weights."""
    sums = []
    for network in backend._trained.values():
        trained = [p.detach().reshape(-1) for p in network.parameters() if p.requires_grad]
        words = torch.cat(trained).view(torch.uint8).to(torch.int64)
        sums.append(float((words * torch.arange(len(words)).remainder(8191)).sum().remainder(2**50)))
    return np.array(sums)


def held(backend: Any) -> dict[str, int]:
    """Bytes that this rank keeps: of the optimizer's state as it lies there, and, where weights are shared out, of
    these, of gradients and of what was gathered at the most, as storages were counted until they were freed."""
    own, store = backend.optimizer, backend.store
    states = getattr(own, "inner", own)._optimizer.state.values()
    state = sum(t.nbytes for state in states for t in state.values() if isinstance(t, torch.Tensor) and t.ndim)
    kinds = {"weights": SHARE, "gathered": GATHERED, "gradients": GRADIENTS}
    left = store.bytes["device", GATHERED] + store.bytes["device", GRADIENTS]
    return {"state": state, **{name: store.peak["device", kind] for name, kind in kinds.items()}, "left": left}


if __name__ == "__main__":
    main()
