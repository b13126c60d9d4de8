"""Runs beside each other: `dreambooth compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from ..io.files import AGAIN, explain_disk_errors, numbered, write_new
from ..io.targets import new_file, refuse_taken
from ..report.comparison import Comparison, compare_runs, shown
from ..report.comparison_page import figures, render_comparison
from .runs import find_run

PAGE = "comparison.html"
"""The page's name where none is given."""


def compare(runs: Sequence[Path], output: Path | None, judged: Sequence[Path] = ()) -> Comparison:
    """Compare runs, finished or not.

    Args:
        runs: their folders, or folders with a single run at work below them.
        judged: folders that `dreambooth evaluate` has made of them; those in a run's own folder are found.
        output: the page to write; a folder gets one under the next free name.  None: no page.

    Raises:
        ConfigError: fewer than two runs, no run there, one twice, an evaluation of another, or the page is there.
        RunError: the page cannot be written.
    """
    if len(runs) < 2:
        raise ConfigError(f"RUN: needs two runs or more to compare; received {len(runs)}")
    folders = [find_run(run).folder for run in runs]
    for place, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:place]]:
            raise ConfigError(f"{folder}: is given twice; a run compared with itself says nothing")
    if output is not None and not output.is_dir():
        refuse_taken(output, "output", folder=False)
    comparison = compare_runs(folders, judged)
    return comparison if output is None else replace(comparison, page=_write(comparison, output))


def _write(comparison: Comparison, output: Path) -> Path:
    page = render_comparison(comparison).encode("utf-8", "replace")
    with explain_disk_errors(f"writing {output}", AGAIN):
        if output.is_dir():
            return write_new(numbered(output / PAGE), page)
        with new_file(output) as file:
            file.write_bytes(page)
    return output


def in_words(comparison: Comparison) -> str:
    """The same for a terminal, but for curves and pictures."""
    runs = comparison.runs
    head = ("", *(f"{run.letter} {run.name}"[:24] for run in runs))
    parts = [f"{run.letter}  {run.folder}: {run.data.state}" for run in runs]
    parts += [f"warning: {words}" for words in comparison.warnings]
    differs = [(name, *map(shown, values)) for name, values in comparison.differs.items()]
    parts += ["", *(_table([head, *differs]) if differs else ["all settings are alike, but for where the runs lie"])]
    parts += ["", *_table([head, *((name, *values) for name, values in figures(comparison))])]
    return "\n".join(parts)


WIDEST = 48
"""Columns of a cell at most."""


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    cut = [[cell if len(cell) <= WIDEST else f"{cell[: WIDEST - 1]}…" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cut]
