"""What every sample of a run is: which image, which variant, which class image.  A pure function of its place.

The run's samples form one stream.  Update u (from 0) takes the G places u·G … u·G+G−1 of it, where G = batch size ·
accumulation · devices; a place never depends on how the G are shared out.  Each concept's instance images, repeated
as asked, are walked in a fresh order again and again, and so are its class images: after any whole number of rounds
every image has been used equally often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .rng import Purpose, generator

INSTANCE, CLASS = 0, 1
"""Row kinds: the subject's photograph, and the class picture that it brings with prior preservation."""


@dataclass(frozen=True)
class Sample:
    """One row of a batch before its arithmetic.

    `place` and `row` key its random draws; `variant` is None where a new transform is drawn for every sample, and
    `epoch_place` then keys that draw.
    """

    place: int
    row: int
    image: int
    variant: int | None


@dataclass(frozen=True)
class Plan:
    """The stream of samples.

    Args:
        seed: the run's seed.
        instances: number of instance images.
        classes: number of class images, 0 without prior preservation.
        batch_size: instance samples of a micro-batch on one device.
        accumulation: micro-batches of an update on one device.
        world_size: devices.
        instance_variants: cached random transforms of an instance image; 0 draws one per sample.
        class_variants: the same for class images.
    """

    seed: int
    instances: int
    classes: int = 0
    batch_size: int = 1
    accumulation: int = 1
    world_size: int = 1
    instance_variants: int = 1
    class_variants: int = 1

    @property
    def samples_per_update(self) -> int:
        """G: instance samples of an update over all devices."""
        return self.batch_size * self.accumulation * self.world_size

    @property
    def updates_per_epoch(self) -> int:
        """⌈L/G⌉, where L is the longer of the instance and the class list."""
        return -(-max(self.instances, self.classes) // self.samples_per_update)

    def samples(self, place: int) -> list[Sample]:
        """The rows of one place: the instance sample and, with prior preservation, its class sample."""
        rows = [self._sample(place, INSTANCE, self.instances, self.instance_variants)]
        if self.classes:
            rows.append(self._sample(place, CLASS, self.classes, self.class_variants))
        return rows

    def micro_batches(self, update: int, rank: int = 0) -> list[list[Sample]]:
        """The rows of a device's micro-batches, instance rows first.

        Micro-batch m of device r takes places u·G + (m·world + r)·B …, so the first B·world places of an update are
        its first micro-batch on every device.
        """
        batches = []
        for m in range(self.accumulation):
            start = update * self.samples_per_update + (m * self.world_size + rank) * self.batch_size
            rows = [self.samples(place) for place in range(start, start + self.batch_size)]
            batches.append([row[kind] for kind in range(len(rows[0])) for row in rows])
        return batches

    def images_used(self, first: int, last: int, rank: int = 0) -> Iterator[Sample]:
        """The rows of updates first … last−1 on a device: what must be encoded, and nothing else."""
        for update in range(first, last):
            for batch in self.micro_batches(update, rank):
                yield from batch

    def _sample(self, place: int, row: int, images: int, variants: int) -> Sample:
        image = int(_order(self.seed, row, place // images, images)[place % images])
        if not variants:
            return Sample(place, row, image, None)
        draw = int(generator(self.seed, Purpose.VARIANT, place, row).integers(variants)) if variants > 1 else 0
        return Sample(place, row, image, draw)


@lru_cache(maxsize=64)
def _order(seed: int, row: int, round_: int, images: int) -> NDArray[np.int64]:
    return generator(seed, Purpose.ORDER, round_, row).permutation(images)
