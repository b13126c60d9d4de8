"""Line charts as inline SVG: no script, colours from the page's style sheet, so that dark mode reaches them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 42
"""The frame's margins, for the axes' numbers."""
MOST_POINTS = 500
"""A line of more points is drawn by the least and greatest of each stretch."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    label: str
    style: str
    """CSS classes."""
    x: Array
    y: Array
    """NaN interrupts the line."""
    dots: bool = False
    faint: bool = False
    """Single measurements behind their mean: their peaks may leave the frame."""


def smooth(values: Array) -> Array:
    """Centred moving mean over about a twelfth of the values; NaN counts as absent.

    Centred, it does not lag behind as an exponential mean does; at the ends its window is cut.
    """
    half = max(1, len(values) // 24)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    at = np.arange(len(values))
    start, stop = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    count = counts[stop] - counts[start]
    return np.where(count > 0, (sums[stop] - sums[start]) / np.maximum(count, 1), np.nan)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high]; about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def line_chart(
    identity: str,
    title: str,
    summary: str,
    lines: Sequence[Line],
    *,
    mark: tuple[float, float, str] | None = None,
    zero: bool = True,
) -> str:
    """The chart as an <svg> element.

    Args:
        identity: unique in the page.
        title, summary: what a screen reader says.
        lines: later ones lie above earlier ones.
        mark: (x, y, words) of the lowest point, which is ringed.
        zero: let the vertical axis begin at 0.
    """
    x_range, (low, high) = _ranges(lines, zero)
    if mark is not None:  # words below the lowest point cross no line
        low -= 0.18 * (high - low)
    frame = _Frame(x_range, (low, high))
    drawn = "".join(frame.line(line) for line in lines)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{identity}-t {identity}-d">'
        f'<title id="{identity}-t">{escape(title)}</title><desc id="{identity}-d">{escape(summary)}</desc>'
        f'<clipPath id="{identity}-c"><rect x="{LEFT - 4}" y="{TOP}" width="{WIDTH - LEFT - RIGHT + 8}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
        f'{_axes(frame)}<g clip-path="url(#{identity}-c)">{drawn}</g>{frame.mark(*mark) if mark else ""}</svg>'
    )


@dataclass(frozen=True)
class _Frame:
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(self, line: Line) -> str:
        points = [(self.x(x), self.y(y)) for x, y in _thinned(line.x, line.y)]
        path, pen = [], "M"
        for x, y in points:
            if math.isfinite(y):
                path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L" if math.isfinite(y) else "M"
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points if line.dots and math.isfinite(y)
        )
        return f'<g class="line {line.style}"><path d="{"".join(path)}"/>{dots}</g>'

    def mark(self, x: float, y: float, words: str) -> str:
        px, py = self.x(x), self.y(y)
        anchor = "start" if px < LEFT + 90 else "end" if px > WIDTH - RIGHT - 90 else "middle"
        return (
            f'<g class="mark"><circle cx="{px:.1f}" cy="{py:.1f}" r="6"/>'
            f'<text x="{px:.1f}" y="{py + 24:.1f}" text-anchor="{anchor}">{escape(words)}</text></g>'
        )


def _ranges(lines: Sequence[Line], zero: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    x = np.concatenate([line.x for line in lines])
    known = [(line, line.y[np.isfinite(line.y)]) for line in lines]
    tops = [np.percentile(y, 99 if line.faint else 100) for line, y in known if len(y)]
    low, high = (min(float(y.min()) for _, y in known if len(y)), float(max(tops))) if tops else (0.0, 1.0)
    low = min(0.0, low) if zero else low
    room = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    left, right = float(x.min()), float(x.max())
    bottom = low if zero or low == 0 else low - room  # below a share of 0 there is nothing
    return (left, right if right > left else left + 1), (bottom, high + room)


def _axes(frame: _Frame) -> str:
    parts = []
    for value in ticks(*frame.y_range):
        y = frame.y(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for value in ticks(*frame.x_range, 5):
        x = frame.x(value)
        anchor = "end" if x > WIDTH - 30 else "middle"  # wide numbers stay inside
        if value == int(value):
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{number(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">update</text>')
    return f'<g class="axes" aria-hidden="true">{"".join(parts)}</g>'


def number(value: float) -> str:
    """A number in few characters: 0.25, 1,500, 2e-06."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _thinned(x: Array, y: Array) -> list[tuple[float, float]]:
    """At most about MOST_POINTS points, among them every stretch's extremes."""
    if len(x) <= MOST_POINTS:
        return list(zip(x.tolist(), y.tolist(), strict=True))
    chosen: list[int] = []
    for part in np.array_split(np.arange(len(x)), MOST_POINTS // 2):
        values = y[part]
        if np.isfinite(values).any():
            chosen += sorted({int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])})
        else:
            chosen.append(int(part[0]))
    return [(float(x[i]), float(y[i])) for i in chosen]
