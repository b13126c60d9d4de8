"""Runs whose batches are formed one update ahead: not one bit differs, and what fails there is the run's failure."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dreamcore.data import ImageFolder
from dreamcore.errors import RunError
from dreamcore.runs.checkpoint import list_checkpoints
from dreamcore.training import loop
from dreamcore.training.ahead import Ahead
from dreamcore.training.batches import Batcher
from dreamcore.training.latents import Latents

from ..support.runs import PRIOR, numbers, small_run

SETTINGS: dict[str, Any] = PRIOR | {"num_class_images": 1, "prior_num_inference_steps": 1}


def test_nothing_else_is_trained_on(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set[int]()
    form = Batcher.update

    def noted(self: Batcher, update: int, *given: Any) -> Any:
        threads.add(threading.get_ident())
        return form(self, update, *given)

    monkeypatch.setattr(Batcher, "update", noted)
    settings = SETTINGS | {"gradient_accumulation_steps": 2, "max_train_steps": 3}
    ahead = small_run(tiny_model, photos, tmp_path / "ahead", **settings)
    assert len(threads) == 2, "the first update's by the run itself, the others' by a thread of its own"
    threads.clear()
    monkeypatch.setattr(loop, "Ahead", lambda form, total: Ahead(form, None))
    plain = small_run(tiny_model, photos, tmp_path / "plain", **settings)
    assert threads == {threading.get_ident()}
    assert numbers(ahead) == numbers(plain)


def test_photographs_are_decoded_ahead_where_every_update_encodes_its_own(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding, encoding = list[int](), set[int]()
    sample, planes = ImageFolder.sample, Latents._planes

    def decodes(self: ImageFolder, *given: Any) -> Any:
        decoding.append(threading.get_ident())
        return sample(self, *given)

    def encodes(self: Latents, *given: Any) -> Any:
        encoding.add(threading.get_ident())
        return planes(self, *given)

    monkeypatch.setattr(ImageFolder, "sample", decodes)
    monkeypatch.setattr(Latents, "_planes", encodes)
    random = {"cache_latents": False, "center_crop": False, "random_flip": True}
    settings = SETTINGS | random | {"gradient_accumulation_steps": 2, "max_train_steps": 3}
    ahead = small_run(tiny_model, photos, tmp_path / "ahead", **settings)
    here = threading.get_ident()
    assert decoding[:4] == [here] * 4 and len(decoding) == 12, "each once; the first update's by the run itself"
    assert len(others := set(decoding[4:])) == 1 and here not in others
    assert encoding == {here}, "the device is asked by the run alone"
    monkeypatch.setattr(loop, "Ahead", lambda form, total: Ahead(form, None))
    plain = small_run(tiny_model, photos, tmp_path / "plain", **settings)
    assert set(decoding[12:]) == {here}
    assert numbers(ahead) == numbers(plain)


def test_what_fails_there_ends_the_run_in_words(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Batcher.update

    def fails(self: Batcher, update: int, *given: Any) -> Any:
        if update == 2:
            raise RunError("cat.png: it is gone")
        return form(self, update, *given)

    monkeypatch.setattr(Batcher, "update", fails)
    with pytest.raises(RunError, match=r"cat\.png: it is gone"):
        small_run(tiny_model, photos, tmp_path, checkpointing_steps=2)
    assert [update for update, _ in list_checkpoints(tmp_path)] == [2], "what was applied before is kept"
