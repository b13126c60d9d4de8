"""Draw docs/packages.svg from the import statements: `python -m tools.house.draw_packages`."""

from __future__ import annotations

import sys

from tests.support.import_graph import floors, room_graph, without_shortcuts
from tests.support.paths import ROOT

FILE = ROOT / "docs" / "packages.svg"
WIDTH, BOX, HIGH, STEP = 760, 104, 30, 58
BELOW = ("errors", "version")
"""Leaves that nearly everything imports: named below the picture, without arrows."""


def picture() -> str:
    """The packages as SVG: an arrow means that one imports another, and what follows from other arrows is left out."""
    graph = {name: targets - set(BELOW) for name, targets in room_graph().items() if name not in BELOW}
    rows, arrows = floors(graph), without_shortcuts(graph)
    places: dict[str, tuple[float, float]] = {}
    for floor, names in reversed(list(enumerate(rows))):  # below those who import them, so that few arrows cross
        above = {name: [x for other, (x, _) in places.items() if name in arrows[other]] for name in names}
        for i, name in enumerate(sorted(names, key=lambda n: (sum(above[n]) / max(1, len(above[n])), n))):
            places[name] = (WIDTH * (i + 1) / (len(names) + 1), 30 + (len(rows) - 1 - floor) * STEP)
    height = 30 + len(rows) * STEP + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for name, targets in sorted(arrows.items()):
        for target in sorted(targets):
            (x, y), (u, v) = places[name], places[target]
            start, end = f"{x:.0f} {y + HIGH / 2:.0f}", f"{u:.0f} {v - HIGH / 2:.0f}"
            bend = f"C{x:.0f} {y + 40:.0f} {u:.0f} {v - 40:.0f} {end}"
            lines.append(f'<path d="M{start}{bend}" fill="none" stroke="#667" marker-end="url(#tip)"/>')
    for name, (x, y) in sorted(places.items()):
        fill = "#fde7c8" if name in ("adapters", "cli") else "#dcebfb"
        lines.append(
            f'<rect x="{x - BOX / 2:.0f}" y="{y - HIGH / 2:.0f}" width="{BOX}" height="{HIGH}" rx="6" fill="{fill}" '
            f'stroke="#667"/><text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{name}</text>'
        )
    lines.append(f'<text x="12" y="{height - 12}">{" and ".join(BELOW)}: leaves that every package may import</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
