"""From photographs of any kind to the rows of any update: the whole of core's part, with an encoder made of NumPy."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamcore.backends.protocol import Batch
from dreamcore.data import Crop, ImageFolder, bucket_crops, bucket_shapes
from dreamcore.data.image_set import CLASS, INSTANCE
from dreamcore.diffusion.schedule import NoiseSchedule
from dreamcore.text.prompts import PromptTable
from dreamcore.training.batches import Batcher, Weighting
from dreamcore.training.latents import Images, Latents
from dreamcore.training.sample_plan import Plan, Sample, Share

SCHEDULE = NoiseSchedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
SHAPES = bucket_shapes(16, 16, 4)


@dataclass(frozen=True)
class Photograph:
    """A file to be: size in pixels, Pillow's mode, EXIF orientation, and whether it has a mask."""

    size: tuple[int, int]
    mode: str
    orientation: int
    masked: bool


PHOTOGRAPHS = st.lists(
    st.builds(
        Photograph,
        st.tuples(st.integers(8, 40), st.integers(8, 40)),
        st.sampled_from(["RGB", "L", "P", "RGBA", "I;16"]),
        st.integers(1, 8),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
CROPS = st.builds(
    Crop,
    height=st.just(16),
    width=st.just(16),
    center_crop=st.booleans(),
    random_flip=st.booleans(),
    subject=st.booleans(),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[list[Photograph]], Plan, Crop, bool]:
    concepts = draw(st.lists(PHOTOGRAPHS, min_size=1, max_size=3))
    shares = tuple(
        Share(len(c), draw(st.sampled_from([0, 2])), draw(st.integers(1, 2)), draw(st.sampled_from([0.5, 1.0, 2.0])))
        for c in concepts
    )
    variants = draw(st.integers(0, 3))
    plan = Plan(
        draw(st.integers(0, 2**63 - 1)),
        shares,
        accumulation=draw(st.sampled_from([4, 8])),
        instance_variants=variants,
        class_variants=variants,
    )
    return concepts, plan, draw(CROPS), draw(st.booleans())


def save(photograph: Photograph, file: Path, seed: int) -> None:
    w, h = photograph.size
    rng = np.random.default_rng(seed)
    if photograph.mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (h, w), np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).convert(photograph.mode)
    exif = Image.Exif()
    exif[274] = photograph.orientation
    image.save(file, exif=exif)
    if photograph.masked:
        upright = (h, w) if photograph.orientation > 4 else (w, h)
        mask = Image.new("L", upright, 0)
        mask.paste(255, (0, 0, upright[0] // 2, upright[1] // 2))
        mask.save(file.with_name(f"{file.stem}-mask.png"))


@contextmanager
def batcher(concepts: list[list[Photograph]], plan: Plan, crop: Crop, buckets: bool) -> Iterator[Batcher]:
    images: dict[tuple[int, int], Images] = {}
    prompts: dict[tuple[int, int], list[list[str]]] = {}
    shapes = SHAPES if buckets else [(16, 16)]
    with tempfile.TemporaryDirectory() as scratch:
        for number, (photographs, share) in enumerate(zip(concepts, plan.shares, strict=True)):
            classes = [Photograph((20, 20), "RGB", 1, False)] * share.classes
            for row, these in ((INSTANCE, photographs), (CLASS, classes)):
                if not these:
                    continue
                place = Path(scratch) / f"{number}-{row}"
                place.mkdir()
                for k, photograph in enumerate(these):
                    save(photograph, place / f"{k}.png", seed=100 * number + 10 * row + k)
                folder = ImageFolder.open(place, setting="s", masks=row == INSTANCE)
                crops = bucket_crops([p.size for p in folder.photos], crop, shapes)
                images[number, row] = Images(folder, crops, 0.25 if row == INSTANCE else None)
                prompts[number, row] = [[f"{number} {row} {k} {v}" for v in range(2)] for k in range(len(these))]
        latents = Latents(plan.seed, images, encode, 1e4, Path(scratch))
        latents.fill(plan.images_used(0, 2))
        table = PromptTable.collect(prompts, [], empty=True)
        yield Batcher(plan, SCHEDULE, latents, table, Weighting(0.5, 5.0, 0.1, 0.2))


def encode(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A fourth of the size, four channels."""
    n, _, h, w = pixels.shape
    fields = pixels.reshape(n, 3, h // 4, 4, w // 4, 4).mean((3, 5))
    mean = np.concatenate([fields, fields[:, :1] * fields[:, 1:2]], axis=1).astype(np.float32)
    return mean, np.full_like(mean, 0.1)


def rows(batches: list[Batch]) -> list[bytes]:
    """Every number of every row, in an order that does not depend on how they are shared out."""
    found = []
    for b in batches:
        mask = np.ones((len(b.x), 1, *b.x.shape[2:]), np.float32) if b.mask is None else b.mask
        parts = (b.x, b.target, b.t, b.prompt, b.weight, mask)
        found += [b"".join(np.ascontiguousarray(part[i]).tobytes() for part in parts) for i in range(len(b.x))]
    return sorted(found)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(streams(), st.integers(0, 3))
def test_one_device_or_four_and_resumed_or_not(stream: Any, start: int) -> None:
    concepts, plan, crop, buckets = stream
    with batcher(concepts, plan, crop, buckets) as alone:
        whole = [rows(alone.micro_batches(update)) for update in range(start + 2)]
        for batch in (batch for update in range(2) for batch in alone.micro_batches(update)):
            assert batch.mask is None or np.allclose(batch.mask.mean((1, 2, 3)), 1, atol=1e-5)
    shared = replace(plan, accumulation=plan.accumulation // 4, world_size=4)
    with batcher(concepts, shared, crop, buckets) as resumed:
        for update in range(start, start + 2):
            parts = [batch for rank in range(4) for batch in resumed.micro_batches(update, rank)]
            assert rows(parts) == whole[update]
            kinds = np.concatenate([resumed.update(update, rank)[1] for rank in range(4)])
            assert len(kinds) == sum(len(batch.x) for batch in parts)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(streams())
def test_images_are_used_as_their_weights_say_and_crops_lie_inside(stream: Any) -> None:
    concepts, plan, crop, buckets = stream
    epoch = sum(share.places for share in plan.shares)
    used: Counter[tuple[int, int]] = Counter()
    with batcher(concepts, plan, crop, buckets) as b:
        for place in range(epoch):
            for sample in plan.samples(place):
                used[sample.concept, sample.image] += sample.kind == INSTANCE
                check_crop(b.latents, sample, crop)
    for number, share in enumerate(plan.shares):
        wanted = share.repeats * share.weight
        for image in range(share.instances):
            assert abs(used[number, image] - wanted) <= 1, "to within one epoch's rounding"


def check_crop(latents: Latents, sample: Sample, crop: Crop) -> None:
    record = latents.record(sample)
    shape = latents.shape_of(sample)
    assert record.target == shape
    scaled = replace(crop, height=shape[0], width=shape[1]).scaled_size((record.original[1], record.original[0]))
    top, left = record.corner
    assert 0 <= top <= scaled[1] - shape[0] and 0 <= left <= scaled[0] - shape[1]
