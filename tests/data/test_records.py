"""Crops around a subject, the records of crops, and buckets: properties over random sizes, and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamcore.data import Crop, CropRecord, bucket_crops, bucket_shapes
from dreamcore.data.buckets import nearest_shape
from dreamcore.data.masks import scaled_box

sides = st.integers(1, 300)


@given(st.data(), sides, sides, sides, sides, st.booleans(), st.integers(0, 2**32))
def test_the_subject_is_inside_where_it_fits(
    data: st.DataObject, w: int, h: int, height: int, width: int, center: bool, seed: int
) -> None:
    x, y = (sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)), label="box")) for n in (w, h))
    box = (x[0], y[0], x[1], y[1])
    crop = Crop(height, width, center, False, subject=True)
    size = crop.scaled_size((w, h))
    big = scaled_box(box, (w, h), size)
    left, top, _ = crop.place(size, np.random.default_rng(seed), big)
    assert 0 <= left <= size[0] - width and 0 <= top <= size[1] - height
    for start, end, at, length in ((big[0], big[2], left, width), (big[1], big[3], top, height)):
        if end > start and end - start <= length:
            assert at <= start and end <= at + length
        elif end > start:  # too large: the crop shows nothing but the subject
            assert start <= at and at + length <= end


def test_crop_around_a_subject_by_hand() -> None:
    center = Crop(10, 10, True, False, subject=True)
    assert center.place((40, 10), None, (30, 0, 34, 10)) == (27, 0, False)  # its middle, 32, is the crop's
    assert center.place((40, 10), None, (36, 0, 40, 10)) == (30, 0, False)  # no further than the border
    assert center.place((40, 10), None, None) == (15, 0, False)  # no mask: the image's middle
    assert Crop(10, 10, True, False).place((40, 10), None, (36, 0, 40, 10)) == (15, 0, False)
    random = Crop(10, 10, False, False, subject=True)
    rng = np.random.default_rng(0)
    assert {random.place((40, 10), rng, (12, 0, 20, 10))[0] for _ in range(60)} == {10, 11, 12}


def test_a_record_finds_the_crop_again() -> None:
    """The corner is right if cutting there, from the image mirrored where the record says so, gives the same."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    crop = Crop(12, 15, False, True)
    scaled = crop.scale(Image.fromarray(pixels))
    seen = set()
    for _ in range(40):
        place = crop.place(scaled.size, rng)
        record = crop.record((50, 30), place)
        whole = np.asarray(scaled)[:, ::-1] if record.mirrored else np.asarray(scaled)
        top, left = record.corner
        assert np.array_equal(crop.cut(scaled, place), whole[top : top + 12, left : left + 15])
        assert record.original == (30, 50) and record.target == (12, 15)
        seen.add(record.mirrored)
    assert seen == {False, True}


def test_a_record_by_hand() -> None:
    crop = Crop(10, 10, True, True)  # an image of 40×20, scaled to 20×10
    assert crop.record((40, 20), (2, 0, False)) == CropRecord((20, 40), (0, 2), (10, 10), False)
    assert crop.record((40, 20), (2, 0, True)) == CropRecord((20, 40), (0, 8), (10, 10), True)


def test_buckets_by_hand() -> None:
    shapes = bucket_shapes(512, 512, step=64)
    assert shapes == [(640, 384), (576, 448), (512, 512), (448, 576), (384, 640)]
    assert nearest_shape((4000, 3000), shapes) == (448, 576)
    assert nearest_shape((3000, 4000), shapes) == (576, 448)
    assert nearest_shape((1000, 1010), shapes) == (512, 512)
    assert nearest_shape((9000, 1000), shapes) == shapes[-1]


@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from([8, 32, 64]), st.floats(1, 4))
def test_bucket_shapes(height: int, width: int, step: int, longest: float) -> None:
    height, width = 64 * height, 64 * width
    shapes = bucket_shapes(height, width, step, longest)
    assert (height, width) in shapes and len(set(shapes)) == len(shapes)
    for h, w in set(shapes) - {(height, width)}:
        assert h % step == w % step == 0 and h * w <= height * width
        assert (max(h, w) + step) * min(h, w) > height * width  # as long as the pixels allow
        assert max(h, w) <= longest * min(h, w)


@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=20), st.booleans())
def test_every_photograph_has_the_nearest_bucket(sizes: list[tuple[int, int]], flip: bool) -> None:
    shapes = bucket_shapes(512, 512)
    crops = bucket_crops(sizes, Crop(512, 512, False, flip), shapes)
    assert len(crops) == len(sizes) and all(crop.random_flip == flip for crop in crops)
    for (w, h), crop in zip(sizes, crops, strict=True):
        error = {shape: abs(np.log(shape[1] / shape[0]) - np.log(w / h)) for shape in shapes}
        assert error[crop.height, crop.width] == pytest.approx(min(error.values()), abs=1e-8)
