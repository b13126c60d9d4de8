"""Where a figure lies on a supersampled canvas: a polygon in the figure's own units, turned, mirrored and placed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .vocabulary import RGB

Points = Sequence[tuple[float, float]]

SUPERSAMPLING = 4


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> list[tuple[float, float]]:
    """Points of an ellipse or of an arc of it; degrees, clockwise from the right, since y points down."""
    steps = max(6, round((end - start) / 12))
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def mixed(colour: RGB, other: RGB, share: float) -> RGB:
    """The colour with `share` of the other in it."""
    r, g, b = (round(c + (o - c) * share) for c, o in zip(colour, other, strict=True))
    return r, g, b


@dataclass(frozen=True)
class Placement:
    """Draws in units in which the figure reaches from -1 to 1; y points down."""

    x: float
    """Centre, in canvas pixels."""
    y: float
    scale: float
    """Canvas pixels to a unit."""
    tilt: float = 0.0
    """Radians."""
    mirrored: bool = False

    def place(self, points: Points) -> list[tuple[int, int]]:
        """Canvas pixels of points; whole numbers, so that a last bit of sine or cosine cannot show."""
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        sign = -1 if self.mirrored else 1
        return [
            (
                round(self.x + self.scale * (sign * x * cos - y * sin)),
                round(self.y + self.scale * (sign * x * sin + y * cos)),
            )
            for x, y in points
        ]

    def fill(self, canvas: Image.Image, points: Points, paint: RGB | int) -> None:
        ImageDraw.Draw(canvas).polygon(self.place(points), fill=paint)

    def outline(self, canvas: Image.Image, points: Points, paint: RGB | int, width: float) -> None:
        placed = self.place(points)
        ImageDraw.Draw(canvas).line(
            [*placed, placed[0]], fill=paint, width=max(1, round(width * self.scale)), joint="curve"
        )
