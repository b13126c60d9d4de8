"""What each rank of a test checks of optimizers whose state is shared out: they do what one over all weights does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamcore.adapters.torch.optim import Optimizer
from dreamcore.adapters.torch.reducing import Reducer
from dreamcore.adapters.torch.sharding import SharedScaler, Wires
from dreamcore.backends.sharding import Sharded
from dreamcore.formats.weights import read_safetensors
from dreamcore.io.names import OPTIMIZER_FILE
from dreamcore.placement.shards import share_out

from .runs import configuration

NAMES = ("adamw", "adafactor", "came", "lion", "muon", "sgd")
SHAPES = {"unet.a": (8, 6), "unet.b": (6,), "unet.c": (4, 4, 3, 3), "text_encoder.d": (7, 5), "unet.e": (1,)}
UPDATES, OVERFLOWS = 4, 1
RATE = {"unet": 1e-2, "text_encoder": 3e-3}
Parameters = dict[str, dict[str, torch.nn.Parameter]]


def check_optimizers(world: Any, folder: Path) -> None:
    """Every optimizer, plain and with fp16's loss scale, whose overflow on one rank is everyone's."""
    for name in NAMES:
        for halves in (False, True):
            here = folder / f"{name}-{halves}"
            if world.rank == 0:
                here.mkdir(parents=True)
            _check(world, here, name, halves=halves)


def _check(world: Any, folder: Path, name: str, *, halves: bool) -> None:
    config = configuration(folder, folder, folder, optimizer=name, max_grad_norm=0.5)
    mine, whole = _parameters(), _parameters()
    shared = SharedScaler("cpu", enabled=halves)
    alone = Optimizer(whole, config, torch.amp.GradScaler("cpu", enabled=halves))
    sharded = _sharded(world, mine, partial(Optimizer, config=config, scaler=shared))
    for update in range(UPDATES):
        factor = float(sharded.scaled(torch.ones([]))) if halves else 1.0
        before = [p.detach().clone() for p in sharded.named.values()]
        for index, weight in enumerate(SHAPES):
            each = [_gradient(index, rank, update) * factor for rank in range(world.size)]
            if halves and update == OVERFLOWS and index == 0:
                each[-1][0] = torch.inf
            sharded.named[weight].grad = each[world.rank]
            alone.named[weight].grad = torch.stack(each).sum(0)
        if halves:
            alone.scaled(torch.ones([]))
        norms = [float(one.step(RATE)) for one in (sharded, alone)]
        np.testing.assert_allclose(*norms, rtol=1e-5)
        after = list(sharded.named.values())
        if halves and update == OVERFLOWS:
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "nobody moves"
            assert float(sharded.scaled(torch.ones([]))) == factor / 2
        for one, other in zip(after, alone.named.values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        if update == 2:  # goes on from what it has written, and so does the other from the same file
            with sharded.whole_state():
                if world.rank == 0:
                    sharded.save(folder)
                    (folder / "alone").mkdir()
                    alone.save(folder / "alone")
            world.barrier()
            _check_files(folder)
            sharded = _sharded(world, mine, partial(Optimizer, config=config, scaler=shared))
            sharded.load(folder)
            alone.load(folder)


def _check_files(folder: Path) -> None:
    together, alone = (read_safetensors(f / OPTIMIZER_FILE) for f in (folder, folder / "alone"))
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, 1e-4, 1e-6, err_msg=name)


def _sharded(world: Any, parameters: Parameters, make: Any) -> Sharded[torch.Tensor]:
    owners = share_out({name: int(np.prod(shape)) for name, shape in SHAPES.items()}, world.size)
    weights = {p: owners[name] for named in parameters.values() for name, p in named.items()}
    return Sharded(parameters, SHAPES, owners, make, world, Wires(Reducer(list(weights), weights)))


def _parameters() -> Parameters:
    drawn = torch.Generator().manual_seed(0)
    found: Parameters = {"unet": {}, "text_encoder": {}}
    for name, shape in SHAPES.items():
        found[name.partition(".")[0]][name] = torch.nn.Parameter(torch.randn(shape, generator=drawn))
    return found


def _gradient(index: int, rank: int, update: int) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1000 * index + 10 * rank + update)
    return torch.randn(list(SHAPES.values())[index], generator=drawn)
