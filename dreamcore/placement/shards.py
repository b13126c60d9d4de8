"""Which process keeps which weight, or the optimizer's state of it, where these are shared out over the processes of a
run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ..errors import ConfigError
from .blocks import unit_of


def share_out(sizes: Mapping[str, int], processes: int) -> dict[str, int]:
    """The rank that keeps each weight: the largest first, each to whom has least; equal on every machine, in whichever
    order weights come.

    The largest share exceeds an equal one by less than the largest weight.

    Args:
        sizes: numbers of each weight, by its published name.

    Raises:
        ConfigError: fewer weights than processes.
    """
    if len(sizes) < processes:
        raise ConfigError(
            f"shard: {len(sizes)} tensors train, which {processes} processes cannot share; leave shard out, or start "
            f"{len(sizes)} at most"
        )
    owners, filled = dict[str, int](), [0] * processes
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        owner = filled.index(min(filled))
        owners[name] = owner
        filled[owner] += max(size, 1)  # so that everyone has some, even of empty ones
    return owners


def largest_share(sizes: Mapping[str, int], processes: int) -> float:
    """The part of all numbers, 0 … 1, that the fullest of the processes keeps."""
    if processes == 1 or len(sizes) < processes:
        return 1.0
    filled = [0] * processes
    for name, owner in share_out(sizes, processes).items():
        filled[owner] += sizes[name]
    return max(filled) / max(sum(filled), 1)


def gathered(shapes: Mapping[str, Sequence[int]]) -> int:
    """Numbers of a network's weights that all processes have at once, where each keeps its share: of a block and the
    next, and of what is in no block.

    Args:
        shapes: of its weights, by published name.
    """
    units = Counter[str]()
    for name, shape in shapes.items():
        units[unit_of(name)] += math.prod(shape)
    rest = units.pop("", 0)
    return rest + sum(sorted(units.values())[-2:])
