"""What ranks on several machines find out about their folders, with ranks that are threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamcore.errors import ConfigError, RunError
from dreamcore.training import sharing
from dreamcore.training.class_images import ClassImages
from dreamcore.training.sharing import Sharing, refuse_unlike

from ..support.threads import Rank, Together, each


def test_who_sees_the_same_folder(tmp_path: Path) -> None:
    """Ranks 0 and 2 one disk, 1 and 3 another."""
    folders = [tmp_path / name for name in ("a", "b", "a", "b")]
    for folder in folders[:2]:
        folder.mkdir()
    found = each(4, lambda rank: Sharing.of(folders[rank.rank], rank))
    assert [one.ranks for one in found] == [(0, 2), (1, 3), (0, 2), (1, 3)]
    assert [one.leads for one in found] == [True, True, False, False]
    assert [list(one.part_of(range(5))) for one in found] == [[0, 2, 4], [0, 2, 4], [1, 3], [1, 3]]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("places", ["aaaa", "abab", "abcd"])
@pytest.mark.parametrize("there", [0, 2])
def test_every_disk_has_the_same_class_images(places: str, there: int, tmp_path: Path) -> None:
    """Made anew, or some of them there on the first disk alone."""

    def make(seeds: Any) -> NDArray[np.uint8]:
        return np.stack([np.full((8, 8, 3), 10 * seed, np.uint8) for seed in seeds])

    def complete(rank: Rank, wanted: int) -> str:
        images = ClassImages(tmp_path / places[rank.rank], {"prompt": "a dog"})
        return images.complete(wanted, make, 2, rank, lambda text: None).fingerprint

    if there:
        (tmp_path / "a").mkdir()
        each(1, lambda rank: complete(rank, there))
    assert len(set(each(4, lambda rank: complete(rank, 5)))) == 1
    disks = [sorted(f.name for f in (tmp_path / name).iterdir()) for name in set(places)]
    assert all(names == disks[0] for names in disks)
    assert len([name for name in disks[0] if name.startswith("0")]) == 5


def test_what_does_not_come_to_sight_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SIGHT_SECONDS", 0.1)
    one = Sharing(Rank(0, Together(2)), (0, 1))
    late = threading.Timer(0.3, (tmp_path / "b.png").touch)
    with pytest.raises(RunError, match="b.png was written, and is not there"):
        one.until_seen(tmp_path, ["b.png"])
    monkeypatch.setattr(sharing, "SIGHT_SECONDS", 10)
    late.start()
    one.until_seen(tmp_path, ["b.png"])


@pytest.mark.parametrize(
    ("theirs", "update", "words"),
    [
        ({"model": "b"}, 4, "pretrained_model_name_or_path: the model of process 1 is another than process 0"),
        ({"instance_data": "c"}, 4, "instance_data_dir: process 1 has other photographs or captions than process 0"),
        ({}, None, "process 1 finds none and process 0 checkpoint-4; every machine needs it"),
        ({}, 2, "process 1 finds checkpoint-2 and process 0 checkpoint-4"),
    ],
)
def test_ranks_that_would_train_otherwise_are_refused(theirs: dict[str, str], update: int | None, words: str) -> None:
    same = {"model": "a", "instance_data": "a", "class_data": None, "settings": {}}

    def told(rank: Rank) -> str:
        try:
            refuse_unlike(same | (theirs if rank.rank else {}), update if rank.rank else 4, rank)
        except ConfigError as error:
            return str(error)
        return ""

    for said in each(2, told):
        assert words in said
    assert each(2, lambda rank: refuse_unlike(same, 4, rank)) == [None, None]
