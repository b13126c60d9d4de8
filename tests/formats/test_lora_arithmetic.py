"""LoRA merged, resized and extracted, beside NumPy's own products and decompositions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamcore.errors import ConfigError
from dreamcore.formats.lora_arithmetic import (
    OVERSAMPLING,
    added,
    concatenated,
    factored,
    product,
    relative_error,
    resized,
    rounded,
)
from dreamcore.formats.lora_pair import Pair

DRAW = np.random.default_rng(0)
KEY = "unet", "to_q"


def pair(out: int, inputs: tuple[int, ...], rank: int, scale: float = 0.5, dtype: type = np.float32) -> Pair:
    ones = (1,) * (len(inputs) - 1)
    down, up = DRAW.standard_normal((rank, *inputs)), DRAW.standard_normal((out, rank, *ones))
    return Pair(down.astype(dtype), up.astype(dtype), scale)


def dense(one: Pair) -> NDArray[np.float64]:
    """ΔW in float64, by another way than the library's."""
    up, down = one.up.astype(np.float64), one.down.astype(np.float64)
    return one.scale * np.tensordot(up.reshape(len(up), -1), down, 1)


PAIRS = [
    pair(7, (5,), 3),
    pair(6, (4, 3, 3), 2, scale=2.0),
    pair(300, (1000,), 4),
    pair(5, (6,), 2, dtype=np.float16),
    pair(3, (2,), 8),  # more ranks than the weight has room for
]


def test_by_hand() -> None:
    one = Pair(np.array([[1.0, 2.0]], np.float32), np.array([[3.0], [-1.0]], np.float32), 0.5)
    np.testing.assert_array_equal(product(one), [[1.5, 3.0], [-0.5, -1.0]])
    np.testing.assert_array_equal(added(np.ones((2, 2), np.float16), [(one, 2.0)], "q"), [[4, 7], [0, -1]])
    assert relative_error(one, Pair(one.down, np.array([[3.0], [0.0]], np.float32), 0.5)) == pytest.approx(0.1**0.5)


@pytest.mark.parametrize("one", PAIRS, ids=str)
def test_products(one: Pair) -> None:
    assert product(one).dtype == np.float32
    np.testing.assert_allclose(product(one), dense(one), rtol=0, atol=1e-6 * np.abs(dense(one)).max())


def test_a_product_is_a_sum_in_a_stated_order() -> None:
    """So that merging gives the same bytes whatever computes products of matrices on a machine."""
    one = PAIRS[2]
    up, total = one.up * np.float32(one.scale), np.zeros((300, 1000), np.float32)
    for rank in range(4):
        total = total + up[:, rank : rank + 1] * one.down[rank]
    assert product(one).tobytes() == total.tobytes()


def test_several_are_added_and_a_convolution_of_size_1_is_written_either_way() -> None:
    one, other = pair(4, (3,), 2), pair(4, (3, 1, 1), 3)
    weight = DRAW.standard_normal((4, 3, 1, 1)).astype(np.float32)
    wanted = weight + 0.7 * dense(one)[..., None, None] - 0.2 * dense(other)
    np.testing.assert_allclose(added(weight, [(one, 0.7), (other, -0.2)], "q"), wanted, atol=1e-6)
    with pytest.raises(ConfigError, match=r"unet\.q: its LoRA is for a weight \(4, 3\); the model's is \(3, 4\)"):
        added(np.zeros((3, 4), np.float32), [(one, 1.0)], "unet.q")


def test_several_in_one() -> None:
    one, other, alone = pair(6, (4, 3, 3), 2), pair(6, (4, 3, 3), 3, scale=4), pair(5, (4,), 1)
    found = concatenated([({KEY: one}, 0.8), ({KEY: other, ("te", "q"): alone}, -0.5)], "lora")
    assert (found[KEY].rank, found[KEY].scale, found["te", "q"].rank) == (5, 1.0, 1)
    np.testing.assert_allclose(dense(found[KEY]), 0.8 * dense(one) - 0.5 * dense(other), atol=1e-5)
    np.testing.assert_allclose(dense(found["te", "q"]), -0.5 * dense(alone), atol=1e-6)
    with pytest.raises(
        ConfigError, match=r"lora: unet\.to_q: the files are for different models: \(6, 36\) and \(5, 4\)"
    ):
        concatenated([({KEY: one}, 1.0), ({KEY: alone}, 1.0)], "lora")


@pytest.mark.parametrize("one", PAIRS, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 64])
def test_another_rank_is_the_nearest_there_is(one: Pair, rank: int) -> None:
    values = np.linalg.svd(dense(one).reshape(len(one.up), -1), compute_uv=False)
    least = np.linalg.norm(values[rank:]) / np.linalg.norm(values)
    found, said = resized(one, rank)
    assert found.rank <= min(rank, one.rank) and found.scale == 1
    assert found.down.shape[1:] == one.down.shape[1:] and found.up.shape[2:] == one.up.shape[2:]
    assert said == pytest.approx(least, abs=1e-6)
    assert relative_error(one, found) == pytest.approx(least, abs=2e-6)
    assert np.linalg.norm(dense(one) - dense(found)) / np.linalg.norm(dense(one)) == pytest.approx(least, abs=2e-6)


def test_signs_and_sizes_are_chosen() -> None:
    found, _ = resized(PAIRS[2], 3)
    largest = np.abs(found.up).argmax(0)
    assert (found.up[largest, np.arange(3)] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(found.up, axis=0), np.linalg.norm(found.down, axis=1), rtol=1e-5)


def test_nothing_stays_nothing() -> None:
    nothing = Pair(np.zeros((2, 4), np.float32), np.ones((3, 2), np.float32), 1.0)
    found, said = resized(nothing, 1)
    assert said == 0 and not dense(found).any() and relative_error(nothing, found) == 0


@pytest.mark.parametrize("shape", [(20, 30), (8, 4, 3, 3), (300, 400)])
def test_factors_of_a_difference(shape: tuple[int, ...]) -> None:
    """Of a small one exactly the best, of a large one nearly; of one that has the rank all of it."""
    rank = 3
    assert (min(shape[0], int(np.prod(shape[1:]))) > 4 * (rank + OVERSAMPLING)) == (shape == (300, 400))
    low = product(pair(shape[0], shape[1:], rank))
    np.testing.assert_allclose(dense(factored(low, rank)), low, atol=1e-5 * np.abs(low).max())
    noisy = low + 0.3 * DRAW.standard_normal(shape).astype(np.float32)
    least = np.linalg.norm(np.linalg.svd(noisy.reshape(shape[0], -1), compute_uv=False)[rank:])
    found = factored(noisy, rank)
    assert found.down.shape == (rank, *shape[1:])
    assert np.linalg.norm(noisy - dense(found)) <= 1.01 * least
    again = factored(noisy, rank)
    assert found.up.tobytes() == again.up.tobytes() and found.down.tobytes() == again.down.tobytes()


def test_the_error_counts_rounding() -> None:
    one = PAIRS[0]
    assert relative_error(one, one) < 1e-12
    assert 1e-5 < relative_error(one, rounded(one, "F16")) < 1e-3 < relative_error(one, rounded(one, "BF16")) < 1e-2
