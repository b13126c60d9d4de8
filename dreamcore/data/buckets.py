"""Aspect-ratio buckets: a few shapes of about equal pixel count, so that little of any photograph is cropped away.

`bucket_crops` gives each photograph its `Crop`; the plan draws samples as ever, and training splits a
device's samples of an update into micro-batches of one shape.  Weights belong to the update, so nothing else changes:
an update may mix shapes, a micro-batch not.  Class images are called with the same buckets and form micro-batches of
their own.  No photograph is ever left out for its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .crop import Crop


def bucket_shapes(height: int, width: int, step: int = 64, longest: float = 2.0) -> list[tuple[int, int]]:
    """(H, W) of the buckets, from upright to wide.

    Args:
        height: of the training image without buckets; always one of the buckets, as given.
        width: likewise.
        step: sides of the other buckets are multiples of it.
        longest: largest ratio of a bucket's sides.

    Each has at most height·width pixels, and for each height or width the other side is as long as that allows.
    """
    area = height * width
    shapes = {(height, width)}
    for short in range(step, int(np.sqrt(area)) + 1, step):
        long = area // short // step * step
        if long >= short and long <= longest * short:
            shapes |= {(short, long), (long, short)}
    return sorted(shapes, key=lambda shape: (shape[1] / shape[0], shape))


def nearest_shape(size: tuple[int, int], shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (H, W) whose proportions are nearest to those of a photograph of `size` (W, H); the larger of equals."""
    ratio = np.log(size[0] / size[1])
    return min(shapes, key=lambda shape: (round(abs(np.log(shape[1] / shape[0]) - ratio), 9), -shape[0] * shape[1]))


def bucket_crops(sizes: Sequence[tuple[int, int]], crop: Crop, shapes: Sequence[tuple[int, int]]) -> list[Crop]:
    """Each photograph's crop, of the shape nearest to its own; all else as in `crop`."""
    found = [nearest_shape(size, shapes) for size in sizes]
    return [replace(crop, height=height, width=width) for height, width in found]
