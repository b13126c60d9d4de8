"""Arrays of every type and of odd shapes, for tests of files that hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def odd_arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    """By names as weights have them: no dimension, no numbers, other orders in memory, the ends of each type."""
    draw = np.random.default_rng(seed)
    plain = draw.standard_normal((4, 3, 2)).astype(np.float32)
    return {
        "blocks.0.weight": plain,
        "half": draw.standard_normal((5, 2)).astype(np.float16),
        "double": draw.standard_normal(3),
        "whole": np.array([-(2**63), -1, 0, 2**63 - 1], np.int64),
        "ends": np.array([np.inf, -np.inf, np.finfo(np.float32).tiny, -0.0], np.float32),
        "number": np.array(2.5, np.float32),
        "step": np.array(1000, np.int64),
        "empty": np.empty((0,), np.float32),
        "empty.wide": np.empty((0, 3), np.float16),
        "empty.long": np.empty((3, 0, 2), np.float32),
        "turned": plain.T,
        "every.other": plain[::2, 1:],
        "big.endian": draw.standard_normal((2, 2)).astype(">f4"),
        "ünïcode.层": np.ones((1, 1, 1, 1), np.float32),
    }
