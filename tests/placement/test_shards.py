"""Which process keeps the state of which weight."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.tensors import Tensors
from dreamcore.models.folder import ModelFolder
from dreamcore.placement import remedies
from dreamcore.placement.machine import find_machine
from dreamcore.placement.shards import largest_share, share_out

from .test_plan import CARD, count, item, planned, settings


def test_by_hand() -> None:
    sizes = {"unet.a": 10, "unet.b": 7, "unet.c": 5, "unet.d": 3, "text_encoder.e": 3}
    # 10 -> 0; 7 -> 1; 5 -> 1 (7 < 10); e, before d by name, -> 0 (10 < 12); d -> 1 (12 < 13)
    assert share_out(sizes, 2) == {"unet.a": 0, "unet.b": 1, "unet.c": 1, "text_encoder.e": 0, "unet.d": 1}
    assert largest_share(sizes, 2) == 15 / 28
    assert largest_share(sizes, 1) == 1.0


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8])
def test_shares_are_complete_even_and_the_same_in_any_order(processes: int) -> None:
    draw = random.Random(processes)
    sizes = {f"unet.{n}.weight": draw.choice([0, 1, 8, 320, 320 * 320, 320 * 960]) for n in range(300)}
    owners = share_out(sizes, processes)
    assert owners.keys() == sizes.keys() and set(owners.values()) == set(range(processes))
    shuffled = list(sizes.items())
    draw.shuffle(shuffled)
    assert share_out(dict(shuffled), processes) == owners
    filled = [sum(sizes[n] for n, owner in owners.items() if owner == rank) for rank in range(processes)]
    assert max(filled) - sum(sizes.values()) / processes <= max(sizes.values())
    assert largest_share(sizes, processes) == max(filled) / sum(filled)


def test_everyone_has_some_or_it_is_refused() -> None:
    assert sorted(share_out({"a": 0, "b": 0, "c": 5}, 3).values()) == [0, 1, 2]
    with pytest.raises(ConfigError, match="^shard: 2 tensors train, which 3 processes cannot share"):
        share_out({"a": 1, "b": 1}, 3)


def test_the_plan_divides_the_state(tiny_model: Path) -> None:
    n, four = count(tiny_model, "unet"), replace(CARD, processes=4)
    for backend in ("torch", "paddle"):
        whole = item(planned(tiny_model, four, backend), "training", "AdamW's state")
        share = item(planned(tiny_model, four, backend, shard="optimizer"), "training", "AdamW's state")
        assert whole == 8 * n
        assert share == pytest.approx(2 * n, rel=0.001) and share >= 2 * n
    assert item(planned(tiny_model, four, shard="optimizer"), "training", "unet: weights") == 4 * n
    alone = planned(tiny_model, shard="optimizer")
    assert item(alone, "training", "AdamW's state") == 8 * n
    assert any(note.startswith("shard: one process keeps the whole") for note in alone.notes)
    lora = {"use_lora": True, "rank": 2}
    halved = item(
        planned(tiny_model, replace(CARD, processes=2), shard="optimizer", **lora), "training", "AdamW's state"
    )
    assert halved == pytest.approx((item(planned(tiny_model, **lora), "training", "AdamW's state") or 0) / 2, abs=1)


def test_the_plan_divides_all(tiny_model: Path) -> None:
    """Weights, gradients, state and average; and what is gathered, by hand."""
    n, four, shapes = count(tiny_model, "unet"), replace(CARD, processes=4), weights(tiny_model)
    plan = planned(tiny_model, four, shard="full", use_ema=True, gradient_accumulation_steps=2)
    for what, bytes_each in {"unet: weights, 32 bits, one share": 4, "AdamW's state": 8, "moving average": 4}.items():
        assert item(plan, "training", what) == pytest.approx(bytes_each * n / 4, rel=0.001)
    assert item(plan, "loading the model", "unet: weights") == item(plan, "training", "unet: weights")
    blocks = Counter[str]()
    for name, shape in shapes.items():
        parts = name.split(".")
        listed = {"down_blocks": 4, "up_blocks": 4, "mid_block": 3}.get(parts[0], 0)
        blocks[".".join(parts[:listed])] += math.prod(shape)
    rest = blocks.pop("")
    there = rest + sum(sorted(blocks.values())[-2:])
    assert item(plan, "training", "unet: blocks gathered") == 4 * there
    lora = planned(tiny_model, four, shard="full", use_lora=True, rank=2, mixed_precision="bf16")
    assert item(lora, "training", "unet: weights, 16 bits, one share") == pytest.approx(n / 2, rel=0.001)
    assert item(lora, "training", "unet: blocks gathered") == 2 * there
    assert item(planned(tiny_model, shard="full"), "training", "unet: weights") == 4 * n, "one process keeps all"


def weights(model: Path) -> dict[str, tuple[int, ...]]:
    files = ModelFolder.open(str(model)).weight_files("unet")
    return dict(Tensors(files[0]).shapes)


@pytest.mark.parametrize(("backend", "name"), [("torch", "WORLD_SIZE"), ("paddle", "PADDLE_TRAINERS_NUM")])
def test_it_is_advised_where_there_are_several(
    backend: str, name: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, _, helps, change = next(row for row in remedies.REMEDIES if row[0] == "--shard optimizer")
    case = remedies.Case(settings(tiny_model), backend, "training", "device")
    monkeypatch.delenv(name, raising=False)
    assert not helps(case) and find_machine(backend, "cpu").processes == 1
    monkeypatch.setenv(name, "2")
    assert helps(case) and find_machine(backend, "cpu").processes == 2
    assert change(case) == {"shard": "optimizer"} and "shard" in str(words)
    for given in ({"shard": "optimizer"}, {"optimizer": "prodigy"}, {"placement": "cpu"}):
        assert not helps(remedies.Case(settings(tiny_model, **given), backend, "training", "device"))
    whole = next(row for row in remedies.REMEDIES if row[0] == "--shard full")
    assert whole[2](case) == (backend == "torch")
    after = remedies.Case(settings(tiny_model, shard="optimizer"), backend, "training", "device")
    assert whole[2](after) == (backend == "torch") and whole[3](after) == {"shard": "full"}
    assert not whole[2](remedies.Case(settings(tiny_model, compile=True), backend, "training", "device"))
