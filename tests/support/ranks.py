"""What each process of a distributed test runs: the jobs of a file, one after the other in one world.

`torchrun --nproc_per_node N -m tests.support.ranks JOBS`; JOBS is JSON: a list of arguments of `small_run`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamcore.training import setup

from .runs import small_run
from .sharded import check_optimizers


def main() -> None:
    backends: list[Any] = []
    load = setup.load_suggested

    def keep(*arguments: Any) -> Any:
        config, backend = load(*arguments)
        backends.append(backend)
        return config, backend

    setup.load_suggested = keep
    for job in json.loads(Path(sys.argv[1]).read_text()):
        run = small_run(Path(job["model"]), Path(job["photos"]), Path(job["output"]), **job["settings"])
        sums = np.stack(backends[-1].world.gather(checksums(backends[-1])))
        assert (sums == sums[0]).all(), "every rank ends with the same weights"
        assert run.exit_code == 0
        sizes = [int(size[0]) for size in backends[-1].world.gather(np.array([state_bytes(backends[-1])], np.float64))]
        if backends[-1].world.rank == 0:
            Path(f"{job['output']}.state.json").write_text(json.dumps(sizes))
    check_optimizers(backends[-1].world, Path(f"{sys.argv[1]}.optimizers"))
    print(f"rank {os.environ['RANK']} has done all")


def checksums(backend: Any) -> np.ndarray:
    """A number for each trained network that changes with any bit of its weights."""
    sums = []
    for network in backend._trained.values():
        words = torch.cat([p.detach().reshape(-1) for p in network.parameters()]).view(torch.int32).to(torch.int64)
        sums.append(float((words * torch.arange(len(words)).remainder(8191)).sum().remainder(2**50)))
    return np.array(sums)


def state_bytes(backend: Any) -> int:
    """Bytes of the optimizer's state that this rank keeps, as it lies there."""
    own = backend.optimizer
    states = getattr(own, "inner", own)._optimizer.state.values()
    return sum(t.nbytes for state in states for t in state.values() if isinstance(t, torch.Tensor) and t.ndim)


if __name__ == "__main__":
    main()
