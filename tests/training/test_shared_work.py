"""Work that ranks share out, with ranks that are threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamcore.backends.protocol import Solo
from dreamcore.data import Crop, ImageFolder
from dreamcore.data.image_set import ImageSet
from dreamcore.errors import LostRankError
from dreamcore.training.latent_cache import LatentCache
from dreamcore.training.latents import Images, Latents
from dreamcore.training.sample_plan import Plan
from dreamcore.training.shared_work import all_succeed, bytes_of_all, everyones, in_order, made_by_turns, turns

from ..support.threads import Rank, each
from ..support.tiny import draw_photos


@pytest.mark.parametrize("together", [1, 3, 6])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_each_thing_is_made_once_and_all_have_it(size: int, count: int, together: int) -> None:
    made: list[int] = []

    def make(numbers: Sequence[int]) -> list[NDArray[np.float32]]:
        assert 0 < len(numbers) <= together
        made.extend(numbers)
        return [np.full((2, 1, 3), number + 0.1, np.float32) for number in numbers]

    for first in (0, 2):
        found = each(size, lambda rank, first=first: list(made_by_turns(range(count), make, rank, first, together)))
        for one in found:
            assert [float(array[1, 0, 2]) for array in one] == [np.float32(n + 0.1) for n in range(count)]
            assert {array.dtype for array in one} == {np.dtype(np.float32)}
        assert sorted(made) == list(range(count))
        made.clear()


def test_nothing_to_make() -> None:
    assert each(2, lambda rank: list(made_by_turns([], lambda n: n, rank))) == [[], []]
    assert each(2, lambda rank: everyones([], 3, rank)) == [[], []]


def test_the_rows_of_all() -> None:
    own = [[(1, 2), (0, 5)], [], [(0, 5), (0, 0), (7, 1)]]
    assert each(3, lambda rank: everyones(own[rank.rank], 2, rank)) == [[(0, 0), (0, 5), (1, 2), (7, 1)]] * 3


@pytest.mark.parametrize(("count", "size"), [(1, 3), (3, 3), (4, 3), (5, 2)])
def test_turns_are_as_many_for_all(count: int, size: int) -> None:
    """So that nobody waits at a pass that another does not make."""
    everyone = each(size, lambda rank: turns(count, rank))
    assert {len(one) for one in everyone} == {-(-count // size)}
    assert in_order(everyone, count) == list(range(count))
    assert turns(count, Solo()) == list(range(count))


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (5,)])
def test_bytes_arrive_as_they_were(shape: tuple[int, ...]) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
    for found in each(3, lambda rank: bytes_of_all(drawn[rank.rank], rank)):
        np.testing.assert_array_equal(found, drawn)


def test_who_fails_says_so_and_the_others_say_who() -> None:
    def work(rank: Rank) -> str:
        if rank.rank == 1:
            raise ValueError("no memory is left, für nichts")
        return "made"

    def told(rank: Rank) -> Any:
        try:
            return all_succeed(lambda: work(rank), rank)
        except Exception as error:
            return type(error), str(error)

    lost = (LostRankError, "process 1: ValueError: no memory is left, für nichts")
    assert each(3, told) == [lost, (ValueError, "no memory is left, für nichts"), lost]
    assert each(2, lambda rank: all_succeed(lambda: rank.rank, rank)) == [0, 1]


@pytest.mark.parametrize("disks", ["aaa", "aba", None])
def test_ranks_encode_each_image_once(disks: str | None, tmp_path: Path) -> None:
    """Those of every shape, and each disk has all of them for later runs."""
    folder = ImageFolder.open(draw_photos(tmp_path / "photos", count=7), setting="instance_data_dir")
    crops = [Crop(32, 32, False, True)] * 5 + [Crop(16, 32, False, False)] * 2
    images = {ImageSet(0, 0): Images(folder, crops)}
    encoded: list[float] = []

    def encode(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        encoded.append(float(pixels.sum()))
        return (small := pixels[:, :, ::8, ::8]), small / 3

    def fill(rank: Any, cache: LatentCache | None = None) -> list[NDArray[np.float32]]:
        """What the rank's samples see, by place."""
        plan = Plan.single(3, 7, world_size=rank.size, instance_variants=2)
        latents = Latents(3, images, encode, 1e9, tmp_path, cache)
        latents.fill(plan.images_used(0, 12 // rank.size, rank.rank), rank)
        before = len(encoded)
        seen = [np.concatenate(latents(sample)[:2]) for sample in plan.images_used(0, 12 // rank.size, rank.rank)]
        assert len(encoded) == before, "all are there"
        return seen

    alone, once = fill(Solo()), len(encoded)
    caches = [LatentCache(tmp_path / name, "e") for name in disks] if disks else [None] * 3
    for more in (once, 0 if disks else once):  # and a second run, which finds them
        encoded.clear()
        found = each(3, lambda rank: fill(rank, caches[rank.rank]))
        assert len(encoded) == more
        for place, planes in enumerate(alone):
            np.testing.assert_array_equal(found[place % 3][place // 3], planes)
    kept = [sorted(f.name for f in (tmp_path / name).rglob("*.safetensors")) for name in set(disks or "")]
    assert all(len(names) == once and names == kept[0] for names in kept)
