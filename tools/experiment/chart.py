"""docs/experiment.svg: of every cell that was run, its trainings and their mean with its interval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

from .cells import CELLS
from .values import bootstrap, values

PANELS = {
    "likeness": "likeness: how like the subject (higher is better)",
    "PRES": "PRES: how like it pictures of the class have become (lower is better)",
    "DIV": "DIV: how much pictures of one prompt differ",
}
WIDTH, LEFT, RIGHT, ROW, HEAD, FOOT = 520, 178, 14, 22, 26, 30
"""Units of the drawing: all of it, the names, the right margin, a cell's row, a panel's title, its numbers."""
STYLE = """
    text { fill: #1f2328; font: 13px system-ui, sans-serif } .head { font-weight: 600 } .small { fill: #57606a; font-size: 11px }
    .grid { stroke: #d0d7de } .one { fill: #0969da; fill-opacity: .3 } .mean { fill: #0969da } .range { stroke: #0969da; stroke-width: 2 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .small { fill: #9ea7b3 } .grid { stroke: #30363d }
      .one, .mean { fill: #58a6ff } .range { stroke: #58a6ff }
    }
"""  # noqa: E501


def chart(records: list[dict[str, Any]]) -> str:
    """The drawing, light or dark as its reader's page is; a panel for each measure, with 0 and 1 at its ends."""
    names = [cell.name for cell in CELLS if any(one["cell"] == cell.name for one in records)]
    tall = HEAD + len(names) * ROW + FOOT
    panels = "".join(
        f'<g transform="translate(0 {number * tall})">{"".join(_panel(records, names, measure, title))}</g>\n'
        for number, (measure, title) in enumerate(PANELS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall * len(PANELS)}" role="img" '
        f'aria-label="{escape(", ".join(PANELS))} of every cell; the table has the numbers.">\n'
        f"<style>{STYLE}</style>\n{panels}</svg>\n"
    )


def _panel(records: list[dict[str, Any]], names: list[str], measure: str, title: str) -> Iterator[str]:
    yield f'<text class="head" x="8" y="16">{escape(title)}</text>'
    bottom = HEAD + len(names) * ROW
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield f'<path class="grid" d="M{_x(tick)} {HEAD}V{bottom}"/>'
        yield f'<text class="small" x="{_x(tick)}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>'
    for row, name in enumerate(names):
        y = HEAD + row * ROW + ROW // 2
        yield f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        found = values(records, name, measure)
        for value in sorted(set(found.values())):
            yield f'<circle class="one" cx="{_x(value)}" cy="{y}" r="3.5"/>'
        mean, low, high = bootstrap(found)
        yield f'<path class="range" d="M{_x(low)} {y}H{_x(high)}"/>'
        yield f'<circle class="mean" cx="{_x(mean)}" cy="{y}" r="4.5"/>'


def _x(value: float) -> float:
    return round(LEFT + min(max(value, 0.0), 1.0) * (WIDTH - LEFT - RIGHT), 1)
