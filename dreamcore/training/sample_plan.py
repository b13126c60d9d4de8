"""What every sample of a run is: which image, which variant, which class image.  A pure function of its place.

The run's samples form one stream.  Update u (from 0) takes the G places u·G … u·G+G−1 of it, where G = batch size ·
accumulation · devices; a place never depends on how the G are shared out.  The stream runs in rounds; in each, every
concept has as many places as its share says, in a fresh order.  A concept's instance images are walked in a fresh
order again and again, and so are its class images: after any whole number of rounds every image of a concept has been
used equally often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.image_set import CLASS, INSTANCE, PRESERVED, ImageSet
from ..diffusion import randomness


@dataclass(frozen=True)
class Sample:
    """One row of a batch before its arithmetic.

    `place` and `kind` key its random draws; `variant` is None where a new transform is drawn for every sample, and
    `place` then keys that draw.
    """

    place: int
    kind: int
    image: int
    variant: int | None
    concept: int = 0
    preserves: bool = False
    """Whether it is an instance sample once more, draws and all, under words for the class, to which the network is to
    answer as it does by itself."""

    @property
    def image_set(self) -> ImageSet:
        """The images that it is one of."""
        return ImageSet(self.concept, self.kind)

    @property
    def row(self) -> int:
        """What kind of row it makes."""
        return PRESERVED if self.preserves else self.kind


@dataclass(frozen=True)
class Share:
    """One concept's part of the stream."""

    instances: int
    """Instance images."""
    classes: int = 0
    """Class images, 0 without prior preservation."""
    repeats: int = 1
    """Times that each instance image counts in an epoch."""
    weight: float = 1.0
    """How often the concept is drawn, beside others of weight 1."""
    preserves: bool = False
    """Whether the network's own answers under words for the class are kept."""

    @property
    def places(self) -> int:
        """Places of the concept in a round."""
        return max(1, round(self.instances * self.repeats * self.weight))


@dataclass(frozen=True)
class Plan:
    """The stream of samples.

    Args:
        seed: the run's seed.
        shares: the concepts.
        batch_size: instance samples of a micro-batch on one device.
        accumulation: micro-batches of an update on one device.
        world_size: devices.
        instance_variants: cached random transforms of an instance image; 0 draws one per sample.
        class_variants: the same for class images.
    """

    seed: int
    shares: tuple[Share, ...]
    batch_size: int = 1
    accumulation: int = 1
    world_size: int = 1
    instance_variants: int = 1
    class_variants: int = 1

    @classmethod
    def single(cls, seed: int, instances: int, classes: int = 0, **rest: Any) -> Plan:
        """The plan of one concept; `rest` as for `Plan`."""
        return cls(seed, (Share(instances, classes),), **rest)

    @property
    def classes(self) -> int:
        """Class images of all concepts."""
        return sum(share.classes for share in self.shares)

    @property
    def caches_all(self) -> bool:
        """Whether every sample is one of an image's cached transforms."""
        return bool(self.instance_variants and (self.class_variants or not self.classes))

    @property
    def preserves(self) -> bool:
        """Whether some concept keeps the network's own answers."""
        return any(share.preserves for share in self.shares)

    @property
    def samples_per_update(self) -> int:
        """G: instance samples of an update over all devices."""
        return self.batch_size * self.accumulation * self.world_size

    @property
    def updates_per_epoch(self) -> int:
        """⌈L/G⌉, where L is the longer of a round and the class list."""
        return -(-max(self._round, self.classes) // self.samples_per_update)

    @property
    def _round(self) -> int:
        return sum(share.places for share in self.shares)

    def samples(self, place: int) -> list[Sample]:
        """The rows of one place: the instance sample and, where its concept has a prior, its class sample; where it
        keeps the network's own answers, the instance sample once more."""
        concept, rank = self._concept(place)
        share = self.shares[concept]
        rows = [self._sample(place, INSTANCE, concept, rank, share.instances, self.instance_variants)]
        if share.classes:
            rows.append(self._sample(place, CLASS, concept, rank, share.classes, self.class_variants))
        if share.preserves:
            rows.append(replace(rows[0], preserves=True))
        return rows

    def micro_batches(self, update: int, rank: int = 0) -> list[list[Sample]]:
        """The rows of a device's micro-batches, instance rows first, those that preserve last.

        Micro-batch m of device r takes places u·G + (m·world + r)·B …, so the first B·world places of an update are
        its first micro-batch on every device.
        """
        batches = []
        for m in range(self.accumulation):
            start = update * self.samples_per_update + (m * self.world_size + rank) * self.batch_size
            rows = [row for place in range(start, start + self.batch_size) for row in self.samples(place)]
            batches.append(sorted(rows, key=lambda row: row.row))  # a stable order: places stay as they are
        return batches

    def images_used(self, first: int, last: int, rank: int = 0) -> Iterator[Sample]:
        """The rows of updates first … last−1 on a device: what must be encoded, and nothing else."""
        for update in range(first, last):
            for batch in self.micro_batches(update, rank):
                yield from batch

    def _concept(self, place: int) -> tuple[int, int]:
        """The concept of a place, and how many places of that concept lie before it."""
        if len(self.shares) == 1:
            return 0, place
        round_, position = divmod(place, self._round)
        concepts, ranks = _turns(self.seed, round_, tuple(share.places for share in self.shares))
        concept = int(concepts[position])
        return concept, round_ * self.shares[concept].places + int(ranks[position])

    def _sample(self, place: int, kind: int, concept: int, rank: int, images: int, variants: int) -> Sample:
        image = int(_order(self.seed, kind, rank // images, images, concept)[rank % images])
        if not variants:
            return Sample(place, kind, image, None, concept)
        draw = int(randomness.variant(self.seed, place, kind).integers(variants)) if variants > 1 else 0
        return Sample(place, kind, image, draw, concept)


def split_by_shape(
    batches: Sequence[Sequence[Sample]], shape_of: Callable[[Sample], tuple[int, ...]]
) -> list[list[Sample]]:
    """An update's rows on one device in micro-batches of one shape, none larger than the largest of `batches`.

    Where all have one shape these are the micro-batches as they were.  Otherwise rows of a shape are gathered from the
    whole update, class rows by themselves; since weights belong to the update, its sum is the same.
    """
    rows = [row for batch in batches for row in batch]
    if len({shape_of(row) for row in rows}) == 1:
        return [list(batch) for batch in batches]
    size = max(len(batch) for batch in batches)
    gathered: dict[tuple[int, tuple[int, ...]], list[Sample]] = {}
    for row in rows:
        gathered.setdefault((row.row, shape_of(row)), []).append(row)
    return [same[i : i + size] for same in gathered.values() for i in range(0, len(same), size)]


@lru_cache(maxsize=64)
def _order(seed: int, kind: int, round_: int, images: int, concept: int) -> NDArray[np.int64]:
    return randomness.image_order(seed, round_, kind, concept).permutation(images)


@lru_cache(maxsize=8)
def _turns(seed: int, round_: int, places: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A round's concepts in their order, and for each place how often its concept came before in the round."""
    concepts = np.repeat(np.arange(len(places)), places)
    order = randomness.concept_order(seed, round_).permutation(len(concepts))
    concepts = concepts[order]
    ranks = np.empty(len(concepts), np.int64)
    for concept, count in enumerate(places):
        ranks[concepts == concept] = np.arange(count)
    return concepts, ranks
