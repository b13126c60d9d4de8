"""The time that a plan expects, beside what was worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamcore.backends.out_of_memory import CLASSES, TRAINING, VALIDATION
from dreamcore.placement import times
from dreamcore.placement.machine import Machine
from dreamcore.placement.times import expect, operations

from ..support.runs import PRIOR, configuration

H100 = Machine("cuda:0", name="NVIDIA H100 80GB HBM3")


def counted(**settings: Any) -> dict[str, int]:
    config = configuration(Path("m"), Path("p"), Path("o"), train_batch_size=2, **settings)
    return operations(config, 1000, 10, {CLASSES: 6, VALIDATION: 8})


@pytest.mark.parametrize(
    ("settings", "update"),
    [
        ({}, 2 * 3 * 1010),  # forward, gradients of activations, gradients of weights
        ({"use_lora": True}, 2 * 2 * 1010),  # whose own are few
        ({"use_lora": True, "gradient_checkpointing": True}, 2 * 3 * 1010),  # once more forward
        ({**PRIOR, "gradient_accumulation_steps": 3}, 3 * 4 * 3 * 1010),
        (
            {"use_lora": True, "diff_output_preservation": True, "class_prompt": "a dog"},
            4 * 2 * 1010 + 2 * 1000,  # and what the network answers by itself
        ),
    ],
)
def test_operations_of_an_update(settings: dict[str, Any], update: int) -> None:
    assert counted(**settings) == {TRAINING: update, CLASSES: 6000, VALIDATION: 8000}


def test_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration(Path("m"), Path("p"), Path("o"), mixed_precision="bf16")
    work = {TRAINING: 10**12, CLASSES: 10**15, VALIDATION: 10**13}
    found = expect(work, H100, config)
    assert found is not None
    assert found.update == pytest.approx(1 / (0.35 * 989))
    assert found.classes == pytest.approx(1000 / (0.35 * 989))
    two = expect(work, Machine("cuda:0", name=H100.name, processes=2), config)
    assert two is not None and two.update == found.update, "each device its own rows"
    assert two.classes == found.classes / 2 and two.validation == found.validation / 2, "shared out"
    plain = configuration(Path("m"), Path("p"), Path("o"))
    assert expect(work, H100, plain) is None, "float32 without TF32 is not what data sheets tell"
    monkeypatch.setattr(times, "_of_products", lambda: 2e10)
    cpu = expect(work, Machine("cpu"), plain)
    assert cpu is not None and cpu.update == 50
    assert expect(work, Machine("cpu"), config) is None


@pytest.mark.parametrize(
    ("name", "speed"),
    [("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A10G", 70), ("NVIDIA A10", 125), ("NVIDIA RTX A4000", 77)],
)
def test_cards_are_told_by_their_names(name: str, speed: float) -> None:
    config = configuration(Path("m"), Path("p"), Path("o"), mixed_precision="bf16")
    found = expect({TRAINING: 10**12}, Machine("cuda:0", name=name), config)
    assert found is not None and found.speed == pytest.approx(0.35e12 * speed)
    for other in ("NVIDIA GeForce RTX 4090 Laptop GPU", "of a maker that is not known", None):
        assert expect({TRAINING: 10**12}, Machine("cuda:0", name=other), config) is None
