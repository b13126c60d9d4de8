"""Randomness as a function: every draw of a run comes from (seed, purpose, update, position), and from nothing else.

A counter-based generator (Philox, Salmon et al. 2011) needs no state between draws.  So resuming needs none either,
one device or eight see the same numbers, and sampling an image cannot disturb training.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a stream of numbers is for.  The values are part of a run's identity: never renumber them."""

    ORDER = 1
    VARIANT = 2
    TRANSFORM = 3
    CAPTION = 4
    TIMESTEP = 5
    NOISE = 6
    POSTERIOR = 7
    PICTURE = 8
    HELD_OUT = 9
    LORA_INIT = 10
    DROPOUT = 11
    SVD = 12
    NEW_WORD = 13


def generator(seed: int, purpose: Purpose, first: int = 0, second: int = 0, third: int = 0) -> np.random.Generator:
    """A generator for one draw.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        purpose: the stream.
        first: with `second` and `third`, whole numbers >= 0 that place the draw, such as update, position, row.
        second: see `first`.
        third: see `first`.
    """
    counter = np.array([0, first, second, third], np.uint64)
    bits = np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter)
    return np.random.Generator(bits)


# Every key there is.  Streams of one purpose are told apart by `third`; a new draw takes a new function here, and
# `tests/diffusion/test_randomness.py` holds all of them against each other.


def image_order(seed: int, round_: int, kind: int, concept: int) -> np.random.Generator:
    """In which order a concept's images of one kind are walked."""
    return generator(seed, Purpose.ORDER, round_, kind, concept)


def concept_order(seed: int, round_: int) -> np.random.Generator:
    """In which order a round's places go to concepts."""
    return generator(seed, Purpose.ORDER, round_, 2)


def variant(seed: int, place: int, kind: int) -> np.random.Generator:
    """Which cached variant of its image a sample takes."""
    return generator(seed, Purpose.VARIANT, place, kind)


def transform_of_sample(seed: int, place: int, kind: int) -> np.random.Generator:
    """The crop and flip of one sample, where every sample has its own."""
    return generator(seed, Purpose.TRANSFORM, place, kind, 1)


def transform_of_variant(seed: int, image: int, variant: int, kind: int, concept: int) -> np.random.Generator:
    """The crop and flip of a cached variant of an image."""
    return generator(seed, Purpose.TRANSFORM, image, variant, 2 + kind + 2 * concept)


def wording_of_variant(seed: int, image: int, variant: int, concept: int) -> np.random.Generator:
    """The order of tags in one wording of an image."""
    return generator(seed, Purpose.CAPTION, image, variant, 2 + 2 * concept)


def prompt_of_sample(seed: int, place: int, kind: int) -> np.random.Generator:
    """Whether a sample's prompt is dropped, and which of its wordings it takes."""
    return generator(seed, Purpose.CAPTION, place, kind)


def dropped_encoders(seed: int, place: int, kind: int) -> np.random.Generator:
    """Which text encoders' words a sample goes without."""
    return generator(seed, Purpose.CAPTION, place, kind, 1)


def timestep(seed: int, place: int, kind: int) -> np.random.Generator:
    """A sample's timestep."""
    return generator(seed, Purpose.TIMESTEP, place, kind)


def noise(seed: int, place: int, kind: int) -> np.random.Generator:
    """A sample's noise ε, and its offset."""
    return generator(seed, Purpose.NOISE, place, kind)


def posterior(seed: int, place: int, kind: int) -> np.random.Generator:
    """The draw from the distribution that the autoencoder answers with."""
    return generator(seed, Purpose.POSTERIOR, place, kind)


def posterior_of_reference(seed: int, place: int, kind: int) -> np.random.Generator:
    """The same of a sample's reference image."""
    return generator(seed, Purpose.POSTERIOR, place, kind, 1)


def dropout(seed: int, place: int, kind: int) -> np.random.Generator:
    """The seed of LoRA's dropout in the micro-batch that a sample comes first in."""
    return generator(seed, Purpose.DROPOUT, place, kind)


def held_out_images(seed: int, concept: int) -> np.random.Generator:
    """Which of a concept's images are held out."""
    return generator(seed, Purpose.HELD_OUT, concept, 0, 1)


def held_out_loss(seed: int, image: int) -> np.random.Generator:
    """The timesteps and noise at which the loss of a held-out image is measured."""
    return generator(seed, Purpose.HELD_OUT, image)


def lora_factor(seed: int, name: str) -> np.random.Generator:
    """The first value of a layer's down matrix; `name` is COMPONENT.LAYER."""
    return generator(seed, Purpose.LORA_INIT, zlib.crc32(name.encode()))


def new_word(seed: int, name: str) -> np.random.Generator:
    """The first embedding of a new token; `name` is ENCODER and the token's number."""
    return generator(seed, Purpose.NEW_WORD, zlib.crc32(name.encode()))


def svd_probe(rows: int, columns: int) -> NDArray[np.float32]:
    """[rows, columns] of unit variance that a randomised decomposition multiplies a matrix by: always the same."""
    return generator(0, Purpose.SVD, rows, columns).standard_normal((rows, columns), np.float32)


def image_noise(seed: int) -> np.random.Generator:
    """The noise that sampling an image starts from."""
    return generator(seed, Purpose.PICTURE)


def starting_noise(seed: int) -> np.random.Generator:
    """The noise of the smaller image that a larger one is made of."""
    return generator(seed, Purpose.PICTURE, 1)


def first_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """[N, C, h, w] of unit variance: each image's from its own seed, whatever it is made beside."""
    return np.stack([image_noise(seed).standard_normal(shape, np.float32) for seed in seeds])


def upscaling_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """[N, C, H, W] of unit variance, as `first_noise`, for the images that are upscaled."""
    return np.stack([starting_noise(seed).standard_normal(shape, np.float32) for seed in seeds])
