"""What LoRA's factors begin as where a file gives them, and how many they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora_pair import Pair

FILE, LAYER = Path("a.safetensors"), ("unet", "to_q")
SHAPES = {"unet.to_q.lora_A.weight": (3, 5), "unet.to_q.lora_B.weight": (4, 3)}
LENGTHS = {"unet.to_q.lora_magnitude_vector": (4,)}


def lora_of(**given: object) -> Lora:
    return Lora(3, 6.0, 0.0, 1, {"unet": ("to_q",)}, {"unet": ()}, ("to_q",), **given)  # type: ignore[arg-type]


def pair(magnitude: bool = False) -> Pair:
    draw = np.random.default_rng(0)
    down, up, lengths = (draw.standard_normal(s).astype(np.float32) for s in ((2, 5), (4, 2), (4,)))
    return Pair(down, up, 0.5, lengths if magnitude else None)


def test_dora_goes_on_from_a_file() -> None:
    """With the file's lengths, or, of plain LoRA, those that the weight has with it: the same answers."""
    weight, lora = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32), lora_of(dora=True)
    given, plain = pair(magnitude=True), pair()
    there = lora.first_factors(FILE, {LAYER: given}, SHAPES | LENGTHS, lambda *_: weight)
    assert given.magnitude is not None
    np.testing.assert_array_equal(there["unet.to_q.lora_magnitude_vector"], given.magnitude)
    begun = lora.first_factors(FILE, {LAYER: plain}, SHAPES | LENGTHS, lambda *_: weight)
    changed = weight + 0.5 * plain.up @ plain.down
    np.testing.assert_allclose(begun["unet.to_q.lora_magnitude_vector"], np.linalg.norm(changed, axis=1), rtol=1e-6)
    down, up = (begun[f"unet.to_q.lora_{x}.weight"] for x in "AB")
    np.testing.assert_allclose(lora.scale * up @ down, changed - weight, atol=1e-6)


def test_lengths_are_not_lost() -> None:
    with pytest.raises(ConfigError, match=r"^init_lora: a\.safetensors: unet\.to_q: is DoRA, .*; give use_dora$"):
        lora_of().first_factors(FILE, {LAYER: pair(magnitude=True)}, SHAPES)


@pytest.mark.parametrize(
    ("given", "trains", "frozen"),
    [
        ({}, 3 * (40 + 60 * 9), 0),
        ({"dora": True}, 3 * (40 + 60 * 9) + 40, 0),
        ({"method": "pissa"}, 3 * (40 + 60 * 9), 3 * (40 + 60 * 9)),
        ({"method": "loha"}, 2 * 3 * (40 + 60 * 9), 0),
        ({"method": "lokr", "factor": 2}, 2 * 2 + 3 * (20 + 30 * 9), 0),
        ({"method": "lokr"}, 5 * 6 + 3 * (8 + 10 * 9), 0),
    ],
    ids=str,
)
def test_how_many_they_are(given: dict[str, object], trains: int, frozen: int) -> None:
    """Of a convolution [40, 60, 3, 3], at rank 3."""
    lora = lora_of(**given)
    assert (lora.numbers((40, 60, 3, 3)), lora.numbers((40, 60, 3, 3), frozen=True)) == (trains, frozen)


def test_rslora_counts_by_the_root_of_the_rank() -> None:
    assert (lora_of().scale, lora_of(rslora=True).scale) == (2.0, pytest.approx(6 / 3**0.5))
