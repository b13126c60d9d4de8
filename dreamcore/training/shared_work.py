"""Work that the ranks of a run share out, each its part, so that all have all of it: encoded images, and images made.

What is done falls to the ranks by turns.  Results go from host to host by `World.gather`, so that no disk need be
shared; their bits are those of whoever made them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..backends.protocol import World
from ..errors import LostRankError, in_a_line

AT_ONCE = 4
"""Arrays that a rank makes before all hand theirs out."""
LONGEST_ERROR = 500
"""Bytes of what a rank says of its failure to the others."""
T = TypeVar("T")
Float = NDArray[np.float32]


def turns(count: int, world: World) -> list[int]:
    """The numbers of what this rank does of so many things: by turns.

    All do equally many, for some that is the last thing once more: what they hand to each other is of one shape, and
    where weights are shared out, all come to the same passes.
    """
    return [min(n, count - 1) for n in range(world.rank, -(-count // world.size) * world.size, world.size)]


def in_order(everyone: Sequence[Any], count: int) -> list[Any]:
    """What all ranks have made of so many things, as `turns` dealt them out: of each rank an array or a list."""
    return [everyone[n % len(everyone)][n // len(everyone)] for n in range(count)]


def made_by_turns(
    work: Sequence[T],
    make: Callable[[Sequence[T]], Sequence[Float]],
    world: World,
    first: int = 0,
    together: int = 1,
) -> Iterator[Float]:
    """Arrays of one shape [P, h, w], each made by one rank, on every rank; all call it, of the same work.

    Args:
        first: the rank that makes the first, by number modulo their count.
        together: how many `make` is asked for at once, at most.
    """
    if world.size == 1:
        for part in parts(work, together):
            yield from make(part)
        return
    shape: tuple[int, ...] = ()
    at_once = max(AT_ONCE, together)
    for start in range(0, len(work), at_once * world.size):
        some = range(start, min(len(work), start + at_once * world.size))
        own = [work[n] for n in some if maker(n, first, world) == world.rank]
        mine = [array for part in parts(own, together) for array in make(part)]
        if not shape:  # who has none to make does not know it
            known = np.array(mine[0].shape if mine else (0, 0, 0), np.float64)
            shape = tuple(int(side) for side in np.max(world.gather(known), axis=0))
        handed = np.zeros((at_once, *shape))
        for place, array in zip(handed, mine, strict=False):
            place[...] = array
        everyone = world.gather(handed)
        for n in some:
            yield everyone[maker(n, first, world)][(n - start) // world.size].astype(np.float32)


def parts(work: Sequence[T], size: int) -> list[Sequence[T]]:
    """In order, each of so many, the last of what is left."""
    return [work[start : start + size] for start in range(0, len(work), size)]


def maker(number: int, first: int, world: World) -> int:
    """The rank that makes a thing of `made_by_turns`."""
    return (first + number) % world.size


def everyones(rows: Sequence[Sequence[int]], width: int, world: World) -> list[tuple[int, ...]]:
    """The rows of whole numbers that some rank has, each once, in order.

    Args:
        width: numbers of a row.
    """
    if world.size == 1:
        return sorted({tuple(row) for row in rows})
    most = int(np.max(world.gather(np.array([len(rows)], np.float64))))
    mine = np.full((most, width), -1.0)
    mine[: len(rows)] = np.array(rows, np.float64).reshape(len(rows), width)
    found = np.concatenate(world.gather(mine)) if most else mine
    return sorted({tuple(int(n) for n in row) for row in found if row[0] >= 0})


def bytes_of_all(mine: NDArray[np.uint8], world: World) -> list[NDArray[np.uint8]]:
    """Arrays of bytes, of one shape on all ranks, on every rank."""
    if world.size == 1:
        return [mine]
    flat = np.zeros(-(-mine.size // 4) * 4, np.uint8)
    flat[: mine.size] = mine.reshape(-1)
    numbers = world.gather(flat.view(np.uint32).astype(np.float64))
    return [n.astype(np.uint32).view(np.uint8)[: mine.size].reshape(mine.shape) for n in numbers]


def all_succeed(work: Callable[[], T], world: World) -> T:
    """What this rank's share of some work comes to, once every rank's has.

    Raises:
        LostRankError: another's has failed, with what it says; the error of this rank's own is raised as it is.
    """
    if world.size == 1:
        return work()
    failure: Exception | None = None
    try:
        done = work()
    except Exception as error:
        failure = error
    said = np.zeros(LONGEST_ERROR, np.uint8)
    if failure is not None:
        words = (in_a_line(failure) or type(failure).__name__).encode()[:LONGEST_ERROR]
        said[: len(words)] = np.frombuffer(words, np.uint8)
    everyone = bytes_of_all(said, world)
    if failure is not None:
        raise failure
    for rank, words_of in enumerate(everyone):
        if words_of.any():
            raise LostRankError(f"process {rank}: {words_of.tobytes().rstrip(bytes(1)).decode(errors='replace')}")
    return done
