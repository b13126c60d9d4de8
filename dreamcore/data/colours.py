"""Colours that a HEIF image describes by numbers and not by a profile (Rec. ITU-T H.273), as pillow-heif tells them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_D65 = (0.3127, 0.3290)
_SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_WIDE = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
"""Primaries' number -> (x, y) of red, green and blue (H.273, table 2), which white D65 goes with."""
_HIGH_RANGE = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of images for brighter screens (H.273, table 3)."""
ROWS = 256
"""Of an image that are converted at a time."""


def high_range(image: Image.Image) -> str | None:
    """What an image for brighter screens is called, whose numbers mean another light than sRGB's; None for others."""
    return _HIGH_RANGE.get(_said(image, "transfer_characteristics"))


def wide(image: Image.Image) -> int | None:
    """The number of an image's primaries where they are wider than sRGB's and no profile says it better."""
    return number if (number := _said(image, "color_primaries")) in _WIDE else None


def to_srgb(image: Image.Image, primaries: int) -> Image.Image:
    """An RGB image of these primaries (`wide`) in sRGB, sRGB's curve being its own; what sRGB lacks is clipped."""
    matrix = (np.linalg.inv(_to_xyz(_SRGB)) @ _to_xyz(_WIDE[primaries])).astype(np.float32)
    linear = _decoded(np.linspace(0, 1, 256, dtype=np.float32))
    pixels = np.asarray(image).copy()
    for rows in np.split(pixels, range(ROWS, len(pixels), ROWS)):
        rows[:] = np.rint(255 * _encoded(np.clip(linear[rows] @ matrix.T, 0, 1)))
    return Image.fromarray(pixels)


def _said(image: Image.Image, name: str) -> int:
    """A number of the image's description; 2, "unspecified", where there is none or a profile takes its place."""
    described = image.info.get("nclx_profile")
    if not isinstance(described, dict) or image.info.get("icc_profile"):
        return 2
    return int(described.get(name, 2))


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """[3, 3] from linear RGB to XYZ: each primary's colour, so scaled that together they make white."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*primaries, _D65)], np.float64).T
    scaled: NDArray[np.float64] = columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
    return scaled


def _decoded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB's curve (IEC 61966-2-1): light of numbers in [0, 1]."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encoded(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Numbers of light; the inverse of `_decoded`."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)
