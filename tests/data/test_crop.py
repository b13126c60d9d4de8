"""Crops lie inside the image, keep its proportions and take every place that they may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamcore.data import Crop, from_uint8, to_uint8
from dreamcore.data.crop import to_planes

sides = st.integers(1, 400)


@given(sides, sides, sides, sides, st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_crops_lie_inside(w: int, h: int, height: int, width: int, center: bool, flip: bool, seed: int) -> None:
    crop = Crop(height, width, center, flip)
    big = crop.scaled_size((w, h))
    left, top, _ = crop.place(big, np.random.default_rng(seed))
    assert 0 <= left <= left + width <= big[0] and 0 <= top <= top + height <= big[1]
    assert big[0] == width or big[1] == height  # no larger than it must be
    assert abs(big[0] * h - big[1] * w) <= max(w, h)  # the aspect ratio, to within a pixel's rounding


def planes(crop: Crop, picture: Image.Image, seed: int) -> np.ndarray:
    return to_planes(crop.cut(picture, crop.place(picture.size, np.random.default_rng(seed))))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_a_crop_has_the_shape(w: int, h: int, height: int, width: int, seed: int) -> None:
    crop = Crop(height, width, False, True)
    pixels = planes(crop, crop.scale(Image.new("RGB", (w, h), "white")), seed)
    assert pixels.shape == (3, height, width) and pixels.dtype == np.float32 and (pixels == 1).all()


def test_random_crops_reach_both_ends_and_flip_half() -> None:
    crop = Crop(4, 4, False, True)
    rng = np.random.default_rng(0)
    places = [crop.place((7, 4), rng) for _ in range(400)]
    assert {left for left, _, _ in places} == {0, 1, 2, 3} and {top for _, top, _ in places} == {0}
    assert 150 < sum(mirrored for _, _, mirrored in places) < 250


def test_a_flip_mirrors() -> None:
    ramp = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8)[None, :, None], (8, 1, 3)))
    crop = Crop(8, 8, True, True)
    seen = {tuple(to_uint8(planes(crop, ramp, i))[0, 0]) for i in range(20)}
    assert seen == {tuple(range(8)), tuple(range(7, -1, -1))}


def test_nothing_random_needs_no_generator() -> None:
    assert Crop(4, 4, True, False).place((10, 4), None) == (3, 0, False)
    assert not Crop(4, 4, True, False).random
    with pytest.raises(AssertionError):
        Crop(4, 4, False, False).place((10, 4), None)


def test_bytes_round_trip() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(from_uint8(every)), every)
    assert from_uint8(every)[[0, 255]].tolist() == [-1, 1]
    assert to_uint8(np.array([-3.0, 0.999, 3.0])).tolist() == [0, 255, 255]


@pytest.mark.parametrize("subject", [False, True])
def test_the_reach_is_what_all_crops_show(subject: bool) -> None:
    crop, size, box = Crop(10, 12, False, True, subject), (30, 10), (9, 2, 14, 8)
    lefts = [crop.place(size, np.random.default_rng(seed), box)[0] for seed in range(300)]
    assert crop.reach(size, box) == (min(lefts), 0, max(lefts) + 12, 10)
    assert (min(lefts), max(lefts)) == ((2, 9) if subject else (0, 18))
    assert replace(crop, center_crop=True, subject=False).reach(size, box) == (9, 0, 21, 10)
