"""Patterns that a body can wear, as masks in the figure's own units."""

from __future__ import annotations

from PIL import Image

from .placement import Placement, Points, ellipse, rectangle

KINDS = ("plain", "stripe", "spots", "checks", "zigzag", "diamonds", "diagonals", "bars", "chequers", "rings", "halves")
"""All patterns; scenes in named colours wear the first four (`words.PATTERNS`), wild scenes and subjects all."""


def _grid(step: float, odd_shift: float = 0.0) -> list[tuple[float, float]]:
    cells = range(-int(1.3 / step) - 1, int(1.3 / step) + 2)
    return [((i + (odd_shift if j % 2 else 0)) * step, j * step) for i in cells for j in cells]


def figures(kind: str, stripe: Points) -> list[Points]:
    """The polygons that carry the second colour."""
    match kind:
        case "plain":
            return []
        case "stripe":
            return [stripe]
        case "spots":
            return [ellipse(x, y, 0.15, 0.15) for x, y in _grid(0.42, 0.5)]
        case "checks":
            lines = _steps(0.42, 3)
            upright = [rectangle(v - 0.045, -1.4, v + 0.045, 1.4) for v in lines]
            return [*upright, *(rectangle(-1.4, v - 0.045, 1.4, v + 0.045) for v in lines)]
        case "zigzag":
            return [_zigzag(y * 0.62, 0.26) for y in range(-2, 3)]
        case "diamonds":
            return [[(x - 0.2, y), (x, y - 0.27), (x + 0.2, y), (x, y + 0.27)] for x, y in _grid(0.54, 0.5)]
        case "diagonals":
            return [[(x - 1.4, 1.4), (x - 1.14, 1.4), (x + 1.66, -1.4), (x + 1.4, -1.4)] for x in _steps(0.52, 6)]
        case "bars":
            return [rectangle(x - 0.11, -1.4, x + 0.11, 1.4) for x in _steps(0.44, 4)]
        case "chequers":
            return [
                rectangle(x, y, x + 0.36, y + 0.36) for x, y in _grid(0.36) if (round(x / 0.36) + round(y / 0.36)) % 2
            ]
        case "rings":
            return [ellipse(0, 0.1, r, r) + ellipse(0, 0.1, r - 0.24, r - 0.24)[::-1] for r in (0.9, 0.42)]
        case "halves":
            return [rectangle(-0.1, -1.4, 1.4, 1.4)]
    raise ValueError(f"pattern: {kind!r} is none of {', '.join(KINDS)}")


def _steps(step: float, count: int) -> list[float]:
    return [i * step for i in range(-count, count + 1)]


def _zigzag(y: float, thickness: float) -> Points:
    top = [(i * 0.3, y + (0.15 if i % 2 else -0.15)) for i in range(-5, 6)]
    return top + [(x, v + thickness) for x, v in reversed(top)]


def mask(size: tuple[int, int], kind: str, stripe: Points, placement: Placement) -> Image.Image:
    """The pattern over the whole canvas, 255 where the second colour goes."""
    canvas = Image.new("L", size)
    for points in figures(kind, stripe):
        placement.fill(canvas, points, 255)
    return canvas
