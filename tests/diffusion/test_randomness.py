"""The random streams: what they are, golden values so that a run means the same everywhere, and independence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from inspect import isfunction, signature
from itertools import product
from typing import Any

import numpy as np
import pytest

from dreamcore.diffusion import randomness
from dreamcore.diffusion.randomness import Purpose, generator

WORD = 2**64


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """Philox-4×64 with ten rounds, from its definition (Salmon et al. 2011)."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, WORD)
        high1, low1 = divmod(0xCA5A826395121157 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
    return [c0, c1, c2, c3]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("where", [(), (3,), (3, 1), (2**40, 7, 5)])
def test_streams_are_philox_keyed_by_seed_and_purpose_and_counted_by_place(seed: int, where: tuple[int, ...]) -> None:
    place = (*where, 0, 0, 0)[:3]
    for purpose in Purpose:
        raw = generator(seed, purpose, *where).bit_generator.random_raw(8).tolist()
        expected = [x for block in (1, 2) for x in philox((seed, purpose), (block, *place))]
        assert raw == expected, purpose


def test_golden_values() -> None:
    def draw() -> np.random.Generator:
        return generator(42, Purpose.NOISE, 5, 1)

    assert draw().integers(1000, size=6).tolist() == [574, 73, 545, 25, 873, 703]
    assert draw().permutation(8).tolist() == [0, 2, 1, 7, 5, 4, 6, 3]
    assert draw().random(2).tolist() == [0.07368997264983612, 0.025196056474412143]
    assert draw().standard_normal(2, dtype=np.float32).tolist() == [-1.486884593963623, 0.12440653145313263]
    assert draw().standard_normal(2).tolist() == [-1.5266062690816484, -0.18875461233725635]
    single = hashlib.sha256(draw().standard_normal(4096, dtype=np.float32).tobytes()).hexdigest()
    assert single == "9f336ae164dcb5089bdb8b66d8b6917843e55fcfcad868b5b2bd1d190a07e46c"
    double = hashlib.sha256(draw().standard_normal(4096).tobytes()).hexdigest()
    assert double == "1c3e4dee9a458c0c7686af584c85cbbfe931fee06caee9bc9a6950e73ee6ee20"


def test_the_purposes_keep_their_numbers() -> None:
    """A renumbered purpose is another run."""
    names = "ORDER VARIANT TRANSFORM CAPTION TIMESTEP NOISE POSTERIOR PICTURE HELD_OUT LORA_INIT DROPOUT"
    assert [Purpose(i).name for i in range(1, 12)] == names.split(" ")


def test_every_place_has_numbers_of_its_own() -> None:
    seen: dict[bytes, object] = {}
    for key in product((0, 1, 2), Purpose, (0, 1, 2), (0, 1), (0, 1)):
        seed, purpose, *where = key
        numbers = generator(seed, purpose, *where).standard_normal(4).tobytes()
        assert numbers not in seen, (key, seen.get(numbers))
        seen[numbers] = key


def test_streams_do_not_correlate() -> None:
    """Neighbouring places, rows, purposes and seeds: correlations of 4,096 normals stay within five σ."""
    keys = [(0, Purpose.NOISE, 0, 0), (0, Purpose.NOISE, 1, 0), (0, Purpose.NOISE, 0, 1)]
    keys += [(1, Purpose.NOISE, 0, 0), (0, Purpose.POSTERIOR, 0, 0)]
    numbers = np.stack([generator(s, p, *where).standard_normal(4096) for s, p, *where in keys])
    correlation = np.corrcoef(numbers) - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / 64
    assert np.abs(numbers.mean(axis=1)).max() < 5 / 64


def test_a_place_has_at_most_three_coordinates() -> None:
    """A fourth would be dropped, and two places would share their numbers."""
    with pytest.raises(TypeError):
        generator(0, Purpose.NOISE, 1, 2, 3, 4)  # type: ignore[call-arg]


VALUES = dict.fromkeys(("place", "round_", "image", "variant", "concept"), (0, 1, 2, 3))
ARGUMENTS: dict[str, tuple[Any, ...]] = {**VALUES, "seed": (7,), "kind": (0, 1), "name": ("unet.a", "unet.b")}


def test_no_two_draws_share_a_key() -> None:
    seen: dict[tuple[int, ...], tuple[str, tuple[Any, ...]]] = {}
    draws = _draws()
    assert len(draws) > 12
    for name, draw in draws.items():
        for values in product(*(ARGUMENTS[parameter] for parameter in signature(draw).parameters)):
            state = draw(*values).bit_generator.state["state"]
            key = (*map(int, state["key"]), *map(int, state["counter"]))
            assert key not in seen, (name, values, seen[key])
            seen[key] = name, values


def _draws() -> dict[str, Callable[..., np.random.Generator]]:
    """Every function of the module that makes a generator, but for the one that they all call."""
    functions = {name: f for name, f in vars(randomness).items() if isfunction(f) and f is not generator}
    return {name: f for name, f in functions.items() if f.__annotations__.get("return") == "np.random.Generator"}
