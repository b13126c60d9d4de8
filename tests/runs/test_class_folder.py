"""A class folder that two runs fill at once: each image is made once, and both train on all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamcore.backends.protocol import Solo
from dreamcore.training.class_images import ClassImages

RECIPE = {"prompt": "a photo of dog", "model": "m"}
WANTED = 6


def test_two_runs_fill_one_folder(tmp_path: Path) -> None:
    made, said = list[int](), list[str]()
    started, go_on = threading.Event(), threading.Event()

    def make(seeds: Sequence[int]) -> np.ndarray:
        made.extend(seeds)
        started.set()
        assert go_on.wait(30)
        return np.stack([np.full((8, 8, 3), seed, np.uint8) for seed in seeds])

    names: dict[str, list[str]] = {}

    def run(name: str) -> None:
        def say(text: str) -> None:
            said.append(f"{name}: {text}")
            if text.startswith("waiting"):
                go_on.set()  # the first goes on once the second waits for it

        folder = ClassImages(tmp_path, RECIPE).complete(WANTED, make, 2, Solo(), say)
        names[name] = [photo.path.name for photo in folder.photos]

    first, second = (threading.Thread(target=run, args=(name,)) for name in ("first", "second"))
    first.start()
    assert started.wait(30)
    second.start()
    for thread in (first, second):
        thread.join(30)
    assert sorted(made) == list(range(WANTED)), "each once"
    assert names["first"] == names["second"] and len(names["first"]) == WANTED
    assert f"second: waiting: another run is filling {tmp_path}" in said
    assert not any(text.startswith("second: generating") for text in said)
