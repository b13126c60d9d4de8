"""Randomness as a function: every draw of a run comes from (seed, purpose, update, position), and from nothing else.

A counter-based generator (Philox, Salmon et al. 2011) needs no state between draws.  So resuming needs none either,
one device or eight see the same numbers, and sampling a picture cannot disturb training.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


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
