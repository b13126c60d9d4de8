"""What can be measured on a photograph without a model: sameness, sharpness, surroundings, structure.

The thresholds were set on the photographs of the DreamBooth data set (cat, dog, rc_car, teapot) and changed copies of
them; the figures stand beside each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Float = NDArray[np.float32]

HASH_BITS = 63
NEAR_BITS = 10
"""Bits in which near-duplicates differ at most.  Saved anew 0–2, 2 % cropped 0–10, turned by 1° 0–6; different
photographs, of one subject too, 16 and more."""
BLUR_SIDE = 512
BLURRED = 0.55
"""`blur` of a photograph that is called blurred.  Sharp ones reach 0.21–0.43, and blurred by σ = 2 of 512 pixels
0.57–0.75."""
SAME_SURROUNDINGS = 16.0
"""`median_distance`, of 255, below which all photographs seem taken in one place: 7–14 for subjects pasted into one
scene, 30–90 for the sets as they are."""
SAME_VIEW = 0.55
"""`median_likeness` above which all photographs seem to show one pose from one side: 0.80–0.85 for slightly moved and
zoomed copies of one, 0.38–0.78 for a subject of 0.6–0.7 of the width pasted into other scenes at one place and size
(to within 5 %; median 0.64), 0.12–0.36 for the sets as they are.  So a small subject in one pose is missed."""


def perceptual_hash(image: Image.Image) -> NDArray[np.bool_]:
    """[63] signs of the lowest 8×8 cosine coefficients but the mean, against their median (pHash; Zauner 2010)."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    frequency, place = np.arange(8)[:, None], np.arange(32)[None]
    cosines = np.cos(np.pi / 64 * frequency * (2 * place + 1))
    low = (cosines @ grey @ cosines.T).ravel()[1:]
    bits: NDArray[np.bool_] = low > np.median(low)
    return bits


def near_duplicates(hashes: NDArray[np.bool_], others: NDArray[np.bool_] | None = None) -> list[tuple[int, int]]:
    """Pairs i < j whose hashes differ in at most `NEAR_BITS`.

    Args:
        hashes: [N, 63].
        others: [N, 63] what the second of a pair is compared by; its mirror image's hashes, for instance.
    """
    a = np.where(hashes, np.float32(1), np.float32(-1))
    b = a if others is None else np.where(others, np.float32(1), np.float32(-1))
    pairs = []
    for start in range(0, len(a), 1024):  # a·b = 63 − 2·distance; block by block, since N² may be 10⁸
        i, j = np.nonzero(a[start : start + 1024] @ b.T >= HASH_BITS - 2 * NEAR_BITS)
        pairs += [(int(x) + start, int(y)) for x, y in zip(i, j, strict=True) if x + start < y]
    return pairs


def blur(image: Image.Image, side: int = BLUR_SIDE) -> float:
    """0 (crisp) … 1 (no detail): how little is lost when the image is blurred again (Crété et al. 2007).

    It is measured with the short side scaled down to `side`: blur that training never sees does not count.
    """
    grey = image.convert("L")
    scale = min(1.0, side / min(grey.size))
    if scale < 1:
        size = max(1, round(grey.width * scale)), max(1, round(grey.height * scale))
        grey = grey.resize(size, Image.Resampling.LANCZOS)
    values = np.asarray(grey, np.float32)
    return max(_blur_along(values), _blur_along(values.T))


def _blur_along(values: Float) -> float:
    """The metric along the first axis: share of neighbouring differences that a mean over 9 pixels leaves."""
    if len(values) < 11:
        return 0.0  # too small to say
    sums = np.cumsum(np.pad(values, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    smooth = (sums[9:] - sums[:-9]) / 9
    sharp, left = np.abs(np.diff(values[4:-4], axis=0)), np.abs(np.diff(smooth, axis=0))
    total = float(sharp.sum())
    return 1 - float(np.maximum(0, sharp - left).sum()) / total if total else 1.0


def surroundings(image: Image.Image) -> Float:
    """[28, 3] colours of the outermost of 8×8 fields, 0…255: the background, where the subject is in the middle."""
    fields = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX), np.float32)
    edge = np.ones((8, 8), bool)
    edge[1:-1, 1:-1] = False
    ring: Float = fields[edge]
    return ring


def median_distance(rings: Float) -> float:
    """Median over pairs of the mean absolute difference of `surroundings`, [N, 28, 3] with N ≥ 2."""
    distances = [np.abs(rings[i + 1 :] - rings[i]).mean((1, 2)) for i in range(len(rings) - 1)]
    return float(np.median(np.concatenate(distances)))


def structure(image: Image.Image) -> Float:
    """[8, 8, 8] gradients by their direction in each of 8×8 fields (Dalal, Triggs 2005): shapes, whatever the light."""
    grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), np.float64)
    gy, gx = np.gradient(grey)
    place = (np.arctan2(gy, gx) % np.pi) / np.pi * 8
    low, share = np.floor(place).astype(int) % 8, place % 1
    rows, columns = np.indices(grey.shape) // 8
    fields = np.zeros((8, 8, 8), np.float32)
    length = np.hypot(gx, gy)
    np.add.at(fields, (rows, columns, low), length * (1 - share))
    np.add.at(fields, (rows, columns, (low + 1) % 8), length * share)
    return fields


def median_likeness(structures: Float) -> float:
    """Median over pairs of the correlation of their middle 6×6 fields, moved by at most one field; `structure`s
    [N, 8, 8, 8] with N ≥ 2.  The outermost fields, mostly background, are left out."""

    def windows(down: int, right: int) -> Float:
        parts = structures[:, 1 + down : 7 + down, 1 + right : 7 + right]
        parts = (parts - parts.mean((1, 2), keepdims=True)).reshape(len(parts), -1)
        unit: Float = parts / np.maximum(np.linalg.norm(parts, axis=1, keepdims=True), 1e-6)
        return unit

    middle = windows(0, 0)
    best = np.max([middle @ windows(y, x).T for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0)
    return float(np.median(best[np.triu_indices(len(best), 1)]))
