"""Runs a training program in this process and writes down when its updates ended and how much memory it took.

`python -m benchmarks.runner RESULT WARMUP PROGRAM ARGUMENTS ...`; PROGRAM is a script's path, or `dreambooth`.  An
update ends where the optimizer's step returns; where there is a GPU it is waited for, but only at the first and the
last update that count, so that neither program is slowed down in between.
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STUBS = Path(__file__).parent / "stubs"


class Clock:
    """The time at the end of each update."""

    def __init__(self, warmup: int, updates: int) -> None:
        self.warmup, self.updates = warmup, updates
        self.ends: list[float] = []

    def __call__(self, *_: Any) -> None:
        import torch

        if torch.cuda.is_available() and len(self.ends) + 1 in (self.warmup, self.updates):
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds_per_update(self) -> float:
        return (self.ends[-1] - self.ends[self.warmup - 1]) / (len(self.ends) - self.warmup)


def main() -> None:
    result, warmup, program, *arguments = sys.argv[1:]
    if find_spec("torchvision") is None and program != "dreambooth":
        _stand_in_for_torchvision()
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    clock = Clock(int(warmup), int(next(a for a in arguments if a.startswith("--max_train_steps=")).partition("=")[2]))
    register_optimizer_step_post_hook(clock)
    sys.argv = [program, *arguments]
    code: Any = 0
    if program == "dreambooth":
        from dreamcore.cli.main import main as dreambooth

        measure_whole_run()
        code = dreambooth()
    else:
        runpy.run_path(program, run_name="__main__")
    measured = {
        "updates": len(clock.ends),
        "seconds_per_update": clock.seconds_per_update,
        "host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "device_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
    }
    Path(result).write_text(json.dumps(measured), encoding="utf-8")
    sys.exit(code)


def measure_whole_run() -> None:
    """Keep this library from starting its count of memory anew at each stage, which would hide the run's own peak."""
    from dreamcore.backends.peak_memory import PeakMemory

    PeakMemory._take = lambda self: None  # type: ignore[method-assign]


def _stand_in_for_torchvision() -> None:
    """diffusers' scripts use five of its transforms; where it has no build for this torch, those five are enough.

    The libraries are first asked whether they have torchvision: they must not find the stand-in.
    """
    import diffusers
    import transformers

    assert not transformers.utils.is_torchvision_available()
    assert not diffusers.utils.is_torchvision_available()
    sys.path.insert(0, str(STUBS))


if __name__ == "__main__":
    main()
