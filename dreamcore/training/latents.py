"""The clean latents of a run: each image variant encoded once, and exactly those that the plan will ask for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..backends.out_of_memory import IMAGES, during
from ..backends.protocol import Solo, World
from ..data import Crop, CropRecord, ImageFolder, TrainingImage, latent_weights
from ..data.image_set import ImageSet
from ..diffusion.randomness import transform_of_sample, transform_of_variant
from ..errors import named
from ..io.files import explain_disk_errors
from ..io.progress import progress
from ..io.system import reserve
from .latent_cache import LatentCache
from .sample_plan import Sample
from .shared_work import everyones, made_by_turns, maker
from .sharing import Sharing

Float = NDArray[np.float32]
Encode = Callable[[Float], tuple[Float, Float]]
Decoded = Mapping[Sample, TrainingImage]
"""Images that are ready for the autoencoder."""


@dataclass(frozen=True)
class Images:
    """The images of one concept and kind, and how each becomes a training image."""

    folder: ImageFolder
    crops: Sequence[Crop]
    """Each image's."""
    outside_weight: float | None = None
    """Weight of what a mask leaves out; None where the loss is not weighed by place."""


class _Variant(NamedTuple):
    """A cached transform of an image, by which its latents are found."""

    image_set: ImageSet
    image: int
    variant: int

    @classmethod
    def of(cls, sample: Sample) -> _Variant:
        assert sample.variant is not None
        return cls(sample.image_set, sample.image, sample.variant)

    @property
    def sample(self) -> Sample:
        """One that uses it, wherever in the run."""
        return Sample(0, self.image_set.kind, self.image, self.variant, self.image_set.concept)


class Encoded(NamedTuple):
    """What training needs of a sample's image."""

    mean: Float
    """[C, h, w] of the latents' distribution."""
    std: Float
    """[C, h, w]."""
    weights: Float | None
    """[1, h, w] weights of the squared errors."""
    reference: tuple[Float, Float] | None = None
    """Mean and deviation of its reference image's latents."""


class Latents:
    """The latents of any sample.

    Args:
        seed: the run's seed, which keys the crops and flips.
        images: of every concept and kind.
        encode: the backend's `encode_images`.
        memory_bytes: what is cached beyond this lies in files, deleted at the end, in `scratch`.
        disk_cache: where latents of earlier runs lie and those of this one are added.
        together: images of one shape that are encoded at once to be kept.
    """

    def __init__(
        self,
        seed: int,
        images: Mapping[ImageSet, Images],
        encode: Encode,
        memory_bytes: float,
        scratch: Path,
        disk_cache: LatentCache | None = None,
        together: int = 1,
    ):
        self._disk_cache, self._together = disk_cache, together
        self._seed, self._images, self._encode = seed, images, encode
        self._memory_bytes, self._scratch = memory_bytes, scratch
        self._cached: dict[_Variant, Float] = {}
        self._records: dict[_Variant, CropRecord] = {}

    def shape_of(self, sample: Sample) -> tuple[int, ...]:
        """(H, W) of the sample's training image; (H, W, 2) of it and a reference image."""
        images = self._images[sample.image_set]
        crop = images.crops[sample.image]
        return (crop.height, crop.width, 2) if images.folder.refers else (crop.height, crop.width)

    def record(self, sample: Sample) -> CropRecord:
        """What the sample shows of its photograph, for families that are conditioned on it."""
        known = self._records.get(_Variant.of(sample)) if sample.variant is not None else None
        if known is not None:
            return known
        images = self._images[sample.image_set]
        record = images.folder.record(sample.image, images.crops[sample.image], self._draw(sample))
        if sample.variant is not None:
            self._records[_Variant.of(sample)] = record
        return record

    @during(IMAGES)
    def fill(self, samples: Iterable[Sample], world: World | None = None) -> None:
        """Encode every variant that `samples` use: what several ranks use, one of them, for all."""
        world = world or Solo()
        own = {_Variant.of(s) for s in samples if s.variant is not None}
        rows = everyones([(*key.image_set, key.image, key.variant) for key in own], 4, world)
        wanted = [_Variant(ImageSet(concept, kind), image, variant) for concept, kind, image, variant in rows]
        alike: dict[tuple[int, ...], list[_Variant]] = {}
        for key in wanted:
            masked = self._images[key.image_set].outside_weight is not None
            alike.setdefault((*self.shape_of(key.sample), masked), []).append(key)
        sharing = self._disk_cache.shared_with(world) if self._disk_cache else None
        first = 0
        with progress("encoding images", len(wanted)) as step:
            for keys in alike.values():
                self._fill(keys, own, sharing, first, world, step)
                first += len(keys)

    def _fill(
        self,
        keys: Sequence[_Variant],
        own: set[_Variant],
        sharing: Sharing | None,
        first: int,
        world: World,
        step: Callable[[], None],
    ) -> None:
        """Those of one shape, of which only this rank's own are kept.

        Args:
            sharing: the ranks that see the same `latent_cache_dir`, of which the first keeps there what ranks elsewhere
                have encoded.
        """
        room, kept = None, 0
        for number, planes in enumerate(made_by_turns(keys, self._of_variants, world, first, self._together)):
            key = keys[number]
            if sharing and sharing.leads and maker(number, first, world) not in sharing.ranks:
                self._keep(key.sample, planes)
            if key in own:
                if room is None:
                    room = self._allocate((sum(key in own for key in keys), *planes.shape))
                room[kept] = planes
                self._cached[key] = room[kept]
                kept += 1
            step()

    def _of_variants(self, keys: Sequence[_Variant]) -> list[Float]:
        """Of one shape; from an earlier run where it encoded the same."""
        samples, cache = [key.sample for key in keys], self._disk_cache
        if cache is None:
            return self._planes(samples)
        names = {sample: self._key(sample, cache) for sample in samples}
        found = {sample: cache.get(name) for sample, name in names.items()}
        lacking = [sample for sample, planes in found.items() if planes is None]
        for sample, planes in zip(lacking, self._planes(lacking) if lacking else [], strict=True):
            cache.put(names[sample], planes)
            found[sample] = planes
        return [planes for planes in found.values() if planes is not None]

    def decoded(self, samples: Iterable[Sample]) -> Decoded:
        """The images of those whose latents are not kept.  No network is asked, so any thread may."""
        return {s: self._image(s) for s in samples if s.variant is None or _Variant.of(s) not in self._cached}

    def __call__(self, sample: Sample, image: TrainingImage | None = None) -> Encoded:
        """Mean, standard deviation and weights; of an image that `decoded` has told, where it is given."""
        planes = self._cached.get(_Variant.of(sample)) if sample.variant is not None else None
        if planes is None:
            planes = self._planes([sample], [image] if image else None)[0]
        refers, weights = self._images[sample.image_set].folder.refers, planes[-1:] if len(planes) % 2 else None
        mean, std, *reference = np.split(planes[: len(planes) // 2 * 2], 4 if refers else 2)
        return Encoded(mean, std, weights, (reference[0], reference[1]) if refers else None)

    def _keep(self, sample: Sample, planes: Float) -> None:
        """Let later runs here have what a rank elsewhere has encoded."""
        assert self._disk_cache is not None
        if self._disk_cache.get(key := self._key(sample, self._disk_cache)) is None:
            self._disk_cache.put(key, planes)

    def _key(self, sample: Sample, cache: LatentCache) -> str:
        images = self._images[sample.image_set]
        photo, crop = images.folder.photos[sample.image], images.crops[sample.image]
        place = images.folder.place(sample.image, crop, self._draw(sample))
        return cache.key(photo, crop, place, images.outside_weight, images.folder.background)

    @during(IMAGES)
    def _planes(self, samples: Sequence[Sample], decoded: Sequence[TrainingImage] | None = None) -> list[Float]:
        """[2C … 4C + 1, h, w] mean and standard deviation of each sample's image, those of its reference, and weights.

        Samples are of one shape, and all of them have a reference, or none.  The bits of one that is encoded alone do
        not depend on the others.
        """
        images = decoded or [self._image(sample) for sample in samples]
        photos = [self._images[sample.image_set].folder.photos[sample.image] for sample in samples]
        with named(_some(photo.path for photo in photos)):
            encoded = [*self._encode(np.stack([image.pixels for image in images]))]
        if images[0].reference is not None:
            with named(_some(photo.reference for photo in photos)):
                encoded += self._encode(np.stack([i.reference for i in images if i.reference is not None]))
        planes = [np.concatenate(each) for each in zip(*encoded, strict=True)]
        return [self._weighed(*each) for each in zip(planes, samples, images, strict=True)]

    def _weighed(self, planes: Float, sample: Sample, image: TrainingImage) -> Float:
        """With the weights of the squared errors, where the loss is weighed by place."""
        outside = self._images[sample.image_set].outside_weight
        if outside is None:
            return planes
        height, width = planes.shape[1:]
        weights = np.ones((1, height, width), np.float32)
        if image.mask is not None:
            weights = latent_weights(image.mask, (height, width), outside)
        return np.concatenate([planes, weights])

    def _image(self, sample: Sample) -> TrainingImage:
        images = self._images[sample.image_set]
        return images.folder.sample(sample.image, images.crops[sample.image], self._draw(sample))

    def _draw(self, sample: Sample) -> np.random.Generator:
        """Of the sample's crop and flip: its own where every sample has one, otherwise its variant's."""
        if sample.variant is None:
            return transform_of_sample(self._seed, sample.place, sample.kind)
        return transform_of_variant(self._seed, sample.image, sample.variant, sample.kind, sample.concept)

    def _allocate(self, shape: tuple[int, ...]) -> Float:
        size = int(np.prod(shape)) * 4
        if size <= self._memory_bytes:
            self._memory_bytes -= size
            return np.empty(shape, np.float32)
        with explain_disk_errors(f"keeping latents in {self._scratch}"):
            self._scratch.mkdir(parents=True, exist_ok=True)  # on a machine beside the one that writes the run
            file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115  (lives as long as the array)
            reserve(file, size)
            return np.memmap(file, np.float32, "r+", shape=shape)


def _some(files: Iterable[Path | None]) -> str:
    """For messages: the first, and how many there are besides."""
    first, *others = files
    return f"{first} and {len(others)} more" if others else str(first)
