"""An evaluation as a table of text, from what its file holds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .scores import LOWER_IS_BETTER, PHOTOGRAPHS, PRIOR

WIDTH = 100
"""Characters of a line of words."""


def table(content: Mapping[str, Any]) -> str:
    """A row for each measure, a column for each subject, and what they mean; several subjects' confusion below.

    Args:
        content: of evaluation.json.
    """
    subjects = content["subjects"]
    names = list(dict.fromkeys(name for one in subjects for name in one["measures"]))
    head = ["", *(str(one["name"]) for one in subjects), *(["mean"] if len(subjects) > 1 else [])]
    rows = [[_called(name), *_cells(name, subjects)] for name in names]
    lines = [f"{content['source']}: {_counts(subjects)}; judged by {content['judge']['name']}", ""]
    lines += _aligned([head, *rows])
    lines += ["", *(part for note in _notes(content) for part in textwrap.wrap(note, WIDTH, subsequent_indent="  "))]
    if content.get("confusion"):
        shares = [[f"{share:.2f}" for share in row] for row in content["confusion"]]
        called = [str(one["name"]) for one in subjects]
        lines += ["", "share of each subject's pictures (rows) that are most like the photographs of each (columns)"]
        lines += _aligned([["", *called], *([name, *row] for name, row in zip(called, shares, strict=True))])
    return "\n".join(lines)


def _counts(subjects: Sequence[Mapping[str, Any]]) -> str:
    pictures, photographs = (sum(len(one[name]) for one in subjects) for name in ("pictures", "photographs"))
    prompts = {shown["prompt"] for one in subjects for shown in one["pictures"]} - {None}
    of = f" of {len(prompts)} prompts" if prompts else ""
    return f"{pictures} pictures{of}, {photographs} photographs"


def _called(name: str) -> str:
    return f"{name} (lower is better)" if name in LOWER_IS_BETTER else name


def _cells(name: str, subjects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Value and interval of each subject, then the mean over subjects."""
    values = []
    for one in subjects:
        said = one["measures"].get(name)
        if said is None:
            yield "-"
            continue
        values.append(said["value"])
        bounds = "" if said["low"] is None else f" ({said['low']:.3f} to {said['high']:.3f})"
        yield f"{said['value']:.3f}{bounds}"
    if len(subjects) > 1:
        yield f"{sum(values) / len(values):.3f}"


def _notes(content: Mapping[str, Any]) -> Iterator[str]:
    yield "In brackets: 95 % bootstrap intervals over prompts."
    yield str(content["judge"]["about"])
    yield str(content["about_diversity"])
    names = {name for one in content["subjects"] for name in one["measures"]}
    if PRIOR in names:
        yield f"{PRIOR}: likeness of pictures of the class to the photographs: what it has taken of the subject."
    if any(name.startswith(PHOTOGRAPHS) for name in names):
        yield f"{PHOTOGRAPHS}: likeness of the photographs among themselves: what pictures of the subject can reach."
    if any(one["held_out"] for one in content["subjects"]):
        yield "Likeness is to photographs that were held out of training."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
