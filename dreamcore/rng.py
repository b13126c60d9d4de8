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


def generator(seed: int, purpose: Purpose, *where: int) -> np.random.Generator:
    """A generator for one draw.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        purpose: the stream.
        where: up to three whole numbers that place the draw, such as (update, position, row).
    """
    counter = [0, *(*where, 0, 0, 0)[:3]]
    bits = np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=np.array(counter, np.uint64))
    return np.random.Generator(bits)
