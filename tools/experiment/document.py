"""docs/experiment.md and its drawing from the files that the experiment wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

from .cells import CELLS, CLAIMS, PICTURES, SEEDS, SUBJECTS, Cell, Claim, basis
from .chart import chart
from .values import Values, bootstrap, values

RESULTS = "measured.json"
SUMMARY = ROOT / "tools" / "experiment" / "measured.json"
"""What was measured, one record a training: from these the document is written, by whoever has not run it."""
FILE = ROOT / "docs" / "experiment.md"
CHART = FILE.with_suffix(".svg")
MEASURES = ("likeness", "shown", "place", "PRES", "class shown", "class thing", "DIV")


def write_document(folder: Path) -> Path:
    """Take up what lies in a folder, beside what was measured before, and write the document."""
    found = [*measured(), *(read_record(file) for file in sorted(folder.glob(f"*/*/*/{RESULTS}")))]
    listed = standing(found)
    lines = ",\n ".join(json.dumps(one) for one in listed)
    SUMMARY.write_text(f"[{lines}]\n", encoding="utf-8")
    FILE.write_text(document(listed), encoding="utf-8")
    CHART.write_text(chart(drawn(listed)), encoding="utf-8")
    return FILE


def standing(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record a training: those on today's basis, then those on the one before, until today's first cells are
    whole."""
    own, others = _parted(found)
    if all(_count(_in_order(own), cell) == _whole(cell) for cell in CELLS if cell.first):
        return _in_order(own)
    return [*_in_order(own), *_in_order(one for one in others if one["basis"] == others[0]["basis"])]


def _in_order(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last record of each training, in the order of the table."""
    order, last = [cell.name for cell in CELLS], {_key(one): one for one in records}
    return sorted(last.values(), key=lambda one: (order.index(one["cell"]), one["subject"], one["seed"]))


def _parted(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those on today's basis, and those on others."""
    today = basis()  # once: it reads the weights
    own = [one for one in records if one.get("basis", today) == today]
    return own, [one for one in records if one.get("basis", today) != today]


def drawn(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of which there is most to see."""
    own, before = _parted(records)
    return before or own


def _count(records: list[dict[str, Any]], cell: Cell) -> int:
    return sum(one["cell"] == cell.name for one in records)


def _whole(cell: Cell) -> int:
    return len(SUBJECTS) * (len(SEEDS) if cell.trains else 1)


def read_record(file: Path) -> dict[str, Any]:
    """What one training measured; empty where it has not ended."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def measured() -> list[dict[str, Any]]:
    """What is on record."""
    found: list[dict[str, Any]] = json.loads(SUMMARY.read_text(encoding="utf-8")) if SUMMARY.is_file() else []
    return found


def _key(record: Mapping[str, Any]) -> tuple[str, str, int]:
    return record["cell"], record["subject"], record["seed"]


def verdict(records: list[dict[str, Any]], claim: Claim) -> tuple[str, str]:
    """Whether a claim of the paper is reproduced, and why."""
    one, other = (values(records, name, claim.measure) for name in (claim.one, claim.other))
    both = sorted(one.keys() & other.keys())
    if len({subject for subject, _ in both}) < len(SUBJECTS) or len(both) < len(SUBJECTS) * len(SEEDS):
        return "not run", f"{len(both)} of {len(SUBJECTS) * len(SEEDS)} pairs of trainings are there"
    mean, low, high = bootstrap({key: one[key] - other[key] for key in both})
    why = f"{claim.measure} differs by {mean:+.3f} ({low:+.3f} to {high:+.3f})"
    if low <= 0 <= high:
        return "cannot tell", why
    return ("reproduced" if (mean > 0) == claim.higher else "not reproduced"), why


def document(records: list[dict[str, Any]]) -> str:
    """The page."""
    own, before = _parted(records)
    picture = [
        "![The same as dots: a faint one is a training, a full one the mean, its line the interval.](experiment.svg)",
        "",
    ]
    parts: list[str] = [*_head(), ""]
    if before:
        parts += ["## With the weights and recipe that are here", "", *_took(own), ""]
        parts += [*_table(own, every=False), "", *_claims(own, every=False), ""] if own else []
    shown = before or own
    parts += ["## With those before, which the repository's history has" if before else "## Cells", "", *_took(shown)]
    parts += ["", *_table(shown), "", *(picture if shown else []), *_claims(shown), ""]
    return "\n".join(parts)


def _head() -> Iterator[str]:
    yield f"""# What the paper claims, on the miniature

{len(SUBJECTS)} subjects ({", ".join(SUBJECTS)}) × {len(SEEDS)} training seeds, the quickstart's recipe with one thing
changed; {PICTURES} picture seeds of each of five places, judged by the miniature's own judge ([what the measures
mean](evaluating.md)).  `nox -s experiment` runs it, takes up what is done, and writes this page;
`python -m tools.experiment --help` has what can be left out.

The paper's encoders say nothing of these drawings, and these figures nothing of photographs: of a claim it is asked
only whether the difference has its sign.  The protocol on a model and photographs of your own, and on the paper's 30
subjects, is [one command](evaluating.md).

In the tables: mean over subjects, and the 95 % interval of a bootstrap over training seeds where a cell has all of
them."""


def _took(records: list[dict[str, Any]]) -> Iterator[str]:
    took = sum(sum(one["seconds"].values()) for one in records) / 3600
    known = f"{took:.1f} hours of {len(records)} trainings and evaluations, on shared cores."
    yield known if records else "Nothing of it was run yet."


def _table(records: list[dict[str, Any]], *, every: bool = True) -> Iterator[str]:
    yield f"| cell | trainings | {' | '.join(MEASURES)} |"
    yield "|---" * (2 + len(MEASURES)) + "|"
    for cell in CELLS:
        count, of = _count(records, cell), _whole(cell)
        cells = [_figure(values(records, cell.name, name), whole=count == of) for name in MEASURES] if count else []
        state = f"{count} of {of}" if count else "not run"
        if count or every:
            yield f"| {cell.name} | {state} | {' | '.join(cells or [''] * len(MEASURES))} |"


def _figure(found: Values, *, whole: bool) -> str:
    if not found:
        return ""
    mean, low, high = bootstrap(found)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})" if whole and high > low else f"{mean:.2f}"


def _claims(records: list[dict[str, Any]], *, every: bool = True) -> Iterator[str]:
    yield "| claim | where | here | why |"
    yield "|---|---|---|---|"
    for claim in CLAIMS:
        said, why = verdict(records, claim)
        if said != "not run" or every:
            yield f"| {claim.words} | {claim.source} | {said} | {claim.one} and {claim.other}: {why} |"
