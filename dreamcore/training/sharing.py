"""Ranks on several machines: which of them see the same folder, and whether all of them were given the same."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ..backends.protocol import World
from ..errors import ConfigError, RunError
from ..io.files import explain_disk_errors

SIGHT_SECONDS = 90.0
"""Within them a network's file system shows what another machine has written (NFS keeps listings for up to 60 s)."""
T = TypeVar("T")


@dataclass(frozen=True)
class Sharing:
    """The ranks that see a folder as this one does: all, or where it is on no shared disk those of its machine."""

    world: World
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, world: World) -> Self:
        """Find out, by a file that each rank makes and removes; every rank calls it, of the same folder by name."""
        if world.size == 1:
            return cls(world, (0,))
        token = world.broadcast(secrets.token_hex(8))
        marks = [folder / f".{token}-{rank}.tmp" for rank in range(world.size)]
        with explain_disk_errors(f"writing to {folder}"):
            marks[world.rank].touch()
            world.barrier()
            seen = tuple(rank for rank, mark in enumerate(marks) if mark.exists())
            world.barrier()
            marks[world.rank].unlink()
        return cls(world, seen)

    @property
    def leads(self) -> bool:
        """Whether this rank does what one of them does for all."""
        return self.world.rank == self.ranks[0]

    def part_of(self, work: Sequence[T]) -> Sequence[T]:
        """This rank's share."""
        return work[self.ranks.index(self.world.rank) :: len(self.ranks)]

    def agree(self, numbers: Sequence[int], most: int) -> tuple[list[int], bool]:
        """What the rank that leads has found, at most so many numbers from 0, and whether any leader has found some."""
        mine = np.full(most, -1.0)
        mine[: len(numbers)] = numbers
        everyone = [mine] if self.world.size == 1 else self.world.gather(mine)
        theirs = everyone[self.ranks[0]]
        return [int(n) for n in theirs[theirs >= 0]], any((one >= 0).any() for one in everyone)

    def until_seen(self, folder: Path, names: Sequence[str]) -> None:
        """Wait until the folder lists what other machines have written there.

        Raises:
            RunError: it does not.
        """
        end = time.monotonic() + SIGHT_SECONDS
        while missing := set(names) - {path.name for path in folder.iterdir()}:
            if len(self.ranks) == 1 or time.monotonic() > end:
                raise RunError(f"{folder}: {min(missing)} was written, and is not there {SIGHT_SECONDS:g} s later")
            time.sleep(0.5)


SAME = {
    "model": "pretrained_model_name_or_path: the model of process {rank} is another",
    "instance_data": "instance_data_dir: process {rank} has other photographs or captions",
    "class_data": "class_data_dir: process {rank} has other class images",
    "init_lora": "init_lora: process {rank} has another LoRA file",
}
"""Parts of a run that are compared by content -> what to say of the first process that has something else."""


def refuse_unlike(identity: Mapping[str, object], update: int | None, world: World) -> None:
    """Refuse ranks that would train different runs, as several machines without a shared disk might.

    Args:
        identity: what a checkpoint says of the run.
        update: of the checkpoint that this rank goes on from; None where it begins.

    Raises:
        ConfigError: naming what differs, on every rank.
    """
    if world.size == 1:
        return
    parts = [name for name in SAME if name in identity]
    mine = [-1.0 if update is None else update, *(_number(identity[name]) for name in parts)]
    everyone = np.stack(world.gather(np.array(mine, np.float64)))
    unlike = np.argwhere(everyone != everyone[0])
    if not len(unlike):
        return
    rank, column = (int(n) for n in unlike[0])
    if column == 0:
        found = [f"checkpoint-{int(n)}" if n >= 0 else "none" for n in (everyone[rank, 0], everyone[0, 0])]
        raise ConfigError(
            f"resume_from_checkpoint: process {rank} finds {found[0]} and process 0 {found[1]}; every machine needs "
            "it: let them share output_dir, or copy the checkpoint"
        )
    what = SAME[parts[column - 1]].format(rank=rank)
    raise ConfigError(f"{what} than process 0; every machine needs the same: let them share it, or copy it")


def _number(fingerprint: object) -> float:
    """40 bits for a fingerprint, which every backend's `gather` keeps whole."""
    return float(int(hashlib.sha256(str(fingerprint).encode()).hexdigest()[:10], 16))


def agreed_placing(placing: Mapping[str, Any], world: World) -> dict[str, Any]:
    """What placement auto has come to, for all ranks alike, since they add gradients up together: the placement of the
    rank with least room.

    Args:
        placing: this rank's, which has some where the others have.
    """
    if not placing:
        return {}
    offloads = float(placing["placement"] == "cpu")
    mine = [offloads, placing.get("offload_optim_frac", 0.0), placing.get("blocks_to_swap", 0)]
    host, share, blocks = np.max(world.gather(np.array(mine, np.float64)), axis=0)
    place = "cpu" if host else "cuda"
    return {"placement": place, "offload_optim_frac": float(share), "blocks_to_swap": int(blocks)}
