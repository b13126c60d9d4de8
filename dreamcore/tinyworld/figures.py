"""The things of tinyworld, as parts to be filled one after another, in units from -1 to 1 (y down, ground at 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .placement import Points, ellipse, rectangle
from .vocabulary import RGB

Paint = Literal["body", "dark", "pale"] | RGB

BLACK: RGB = (30, 30, 34)
WHITE: RGB = (250, 250, 250)
BROWN: RGB = (112, 76, 44)
GLASS: RGB = (196, 226, 240)
LAMP: RGB = (255, 228, 130)


@dataclass(frozen=True)
class Part:
    """A filled polygon.  "body" takes the thing's colour and pattern, "dark" and "pale" shades of the colour."""

    paint: Paint
    points: Points


@dataclass(frozen=True)
class Figure:
    parts: tuple[Part, ...]
    stripe: Points
    """Where the body carries a stripe."""
    stands: bool = True
    """Whether it throws its shadow on the ground right below it."""


def mug() -> Figure:
    handle = ellipse(0.5, 0.05, 0.46, 0.46, -90, 90) + ellipse(0.5, 0.05, 0.24, 0.25, -90, 90)[::-1]
    body = [(-0.8, -0.72), *ellipse(-0.12, 0.78, 0.62, 0.2, 180, 0), (0.56, -0.72)]
    parts = (
        Part("dark", handle),
        Part("body", body),
        Part("pale", ellipse(-0.12, -0.72, 0.68, 0.2)),
        Part((92, 58, 38), ellipse(-0.12, -0.7, 0.56, 0.13)),
    )
    return Figure(parts, rectangle(-1, -0.12, 1, 0.32))


def house() -> Figure:
    windows = [
        part
        for x in (-0.5, 0.5)
        for part in (
            Part(WHITE, rectangle(x - 0.2, 0.02, x + 0.2, 0.4)),
            Part(LAMP, rectangle(x - 0.14, 0.08, x + 0.14, 0.34)),
        )
    ]
    parts = (
        Part((150, 80, 64), rectangle(0.38, -0.9, 0.6, -0.3)),
        Part("body", rectangle(-0.82, -0.2, 0.82, 1)),
        Part("dark", [(-1, -0.12), (0, -1), (1, -0.12)]),
        *windows,
        Part(BROWN, rectangle(-0.15, 0.42, 0.15, 1)),
    )
    return Figure(parts, rectangle(-1, 0.5, 1, 0.82))


def fish() -> Figure:
    body = [*ellipse(-0.2, 0, 0.76, 0.56, 40, 320), (0.62, -0.06), (0.62, 0.06)]
    parts = (
        Part("dark", [(0.45, 0), (1, -0.52), (0.86, 0), (1, 0.52)]),
        Part("dark", [(-0.45, -0.42), (0.1, -0.86), (0.32, -0.34)]),
        Part("body", body),
        Part("dark", [(-0.12, 0.12), (0.22, 0.06), (0.16, 0.36)]),
        Part(WHITE, ellipse(-0.62, -0.12, 0.14, 0.14)),
        Part(BLACK, ellipse(-0.65, -0.12, 0.07, 0.08)),
    )
    return Figure(parts, rectangle(-0.34, -0.7, 0.0, 0.7), stands=False)


def car() -> Figure:
    body = [(-1, 0.55), (-1, 0.12), (-0.86, 0), (-0.6, -0.06), (-0.36, -0.55), (0.36, -0.55), (0.66, -0.04)]
    body += [(0.92, 0.04), (1, 0.16), (1, 0.55)]
    wheels = [
        part
        for x in (-0.54, 0.56)
        for part in (
            Part(BLACK, ellipse(x, 0.56, 0.28, 0.28)),
            Part((176, 180, 186), ellipse(x, 0.56, 0.13, 0.13)),
        )
    ]
    parts = (
        Part("body", body),
        Part(GLASS, [(-0.44, -0.08), (-0.26, -0.43), (-0.04, -0.43), (-0.04, -0.08)]),
        Part(GLASS, [(0.06, -0.08), (0.06, -0.43), (0.28, -0.43), (0.48, -0.08)]),
        Part(LAMP, ellipse(-0.93, 0.2, 0.08, 0.09)),
        *wheels,
    )
    return Figure(parts, rectangle(-1, 0.06, 1, 0.3))


def tree() -> Figure:
    fir = [(0, -1), (0.42, -0.48), (0.24, -0.48), (0.62, 0.04), (0.4, 0.04), (0.84, 0.62)]
    parts = (
        Part(BROWN, rectangle(-0.13, 0.55, 0.13, 1)),
        Part("body", fir + [(-x, y) for x, y in reversed(fir[1:])]),
    )
    return Figure(parts, rectangle(-1, 0.08, 1, 0.38))


def star() -> Figure:
    turns = [(math.radians(36 * i - 90), 1 if i % 2 == 0 else 0.5) for i in range(10)]
    body = [(r * math.cos(a), 0.05 + r * math.sin(a)) for a, r in turns]
    parts = (
        Part("body", body),
        Part(BLACK, ellipse(-0.17, -0.12, 0.06, 0.1)),
        Part(BLACK, ellipse(0.17, -0.12, 0.06, 0.1)),
    )
    return Figure(parts, rectangle(-1, 0.08, 1, 0.36), stands=False)


def boat() -> Figure:
    hull = [(-0.98, 0.36), (0.98, 0.36), (0.66, 0.94), (-0.6, 0.94)]
    parts = (
        Part(BROWN, rectangle(-0.08, -0.95, 0.02, 0.4)),
        Part("dark", [(0.02, -1), (0.36, -0.88), (0.02, -0.76)]),
        Part("body", [(-0.16, -0.72), (-0.16, 0.24), (-0.86, 0.24)]),
        Part("body", [(0.1, -0.66), (0.86, 0.24), (0.1, 0.24)]),
        Part("body", hull),
        Part("dark", [(-0.98, 0.36), (0.98, 0.36), (0.93, 0.46), (-0.91, 0.46)]),
    )
    return Figure(parts, rectangle(-1, 0.56, 1, 0.78))


def bird() -> Figure:
    parts = (
        Part((226, 140, 50), rectangle(-0.16, 0.6, -0.08, 1)),
        Part((226, 140, 50), rectangle(0.12, 0.6, 0.2, 1)),
        Part("dark", [(0.4, 0.0), (1, -0.42), (0.96, -0.08), (0.62, 0.34)]),
        Part((244, 166, 40), [(-0.78, -0.62), (-1, -0.46), (-0.74, -0.36)]),
        Part("body", ellipse(0.08, 0.16, 0.66, 0.56)),
        Part("body", ellipse(-0.44, -0.5, 0.38, 0.38)),
        Part("dark", [(0.0, -0.02), (0.66, 0.04), (0.44, 0.36), (0.16, 0.34)]),
        Part(WHITE, ellipse(-0.54, -0.56, 0.11, 0.11)),
        Part(BLACK, ellipse(-0.56, -0.56, 0.06, 0.06)),
    )
    return Figure(parts, rectangle(-0.34, -0.12, -0.02, 0.8))


FIGURES: dict[str, Callable[[], Figure]] = {f.__name__: f for f in (mug, house, fish, car, tree, star, boat, bird)}
