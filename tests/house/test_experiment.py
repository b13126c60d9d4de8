"""docs/experiment.md says what was measured, and its verdicts follow from the figures."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from tools.experiment.cells import CELLS, CLAIMS, SEEDS, SUBJECTS, Claim, basis
from tools.experiment.chart import PANELS, chart
from tools.experiment.document import CHART, FILE, document, drawn, measured, standing, verdict
from tools.experiment.values import bootstrap

CLAIM = Claim("more", "here", "full", "before", "likeness", higher=True)


def _records(**means: list[float]) -> list[dict[str, Any]]:
    """Of each cell, a value for each training seed, the same for every subject but for a constant."""
    return [
        {"cell": cell, "subject": subject, "seed": seed, "measures": {"likeness": {"value": each[seed] + number}},
         "seconds": {"training": 1.0}}
        for cell, each in means.items()
        for number, subject in enumerate(SUBJECTS)
        for seed in (SEEDS if cell != "before" else SEEDS[:1])
    ]  # fmt: skip


def test_the_document_is_of_what_was_measured() -> None:
    assert FILE.read_text(encoding="utf-8") == document(measured())
    assert CHART.read_text(encoding="utf-8") == chart(drawn(measured()))


def test_what_was_measured_before_stands_apart_until_the_first_cells_are_there() -> None:
    before = [{**one, "basis": "another"} for one in _records(full=[0.1] * 4, before=[0.0])]
    own = [{**one, "basis": basis()} for one in _records(before=[0.0])]
    listed = standing([*before, *own])
    assert [one["basis"] for one in listed] == [basis()] * len(own) + ["another"] * len(before)
    assert drawn(listed) == listed[len(own) :]
    above, below = document(listed).split("## With those before, ")
    assert "| before | 3 of 3 |" in above and "| full |" not in above and "| full | 12 of 12 |" in below
    every = [{**one, "basis": basis()} for one in _records(**{cell.name: [0.1] * 4 for cell in CELLS if cell.first})]
    assert {one["basis"] for one in standing([*before, *every])} == {basis()}
    assert "With those before" not in document(every)


def test_what_was_measured_is_of_the_model_and_the_preset_that_are_here_or_of_those_before() -> None:
    assert standing(measured()) == measured(), "run python -m tools.experiment --write"


def test_what_was_not_run_is_said_not_to_be() -> None:
    page = document([])
    assert all(f"| {cell.name} | not run |" in page for cell in CELLS)
    assert page.count("| not run |") == len(CELLS) + len(CLAIMS)


@pytest.mark.parametrize(
    ("full", "said"),
    [
        ([0.5, 0.6, 0.5, 0.6], "reproduced"),
        ([-0.5, -0.6, -0.5, -0.6], "not reproduced"),
        ([1, -1, 1, -1], "cannot tell"),
    ],
)
def test_verdicts(full: list[float], said: str) -> None:
    assert verdict(_records(full=full, before=[0.0]), CLAIM)[0] == said
    assert verdict(_records(full=full), CLAIM)[0] == "not run"


def test_the_drawing_has_a_dot_for_each_training_and_a_mean_for_each_cell() -> None:
    records = _records(full=[0.1, 0.2, 0.3, 0.4], before=[0.0])
    for one in records:
        one["measures"] |= dict.fromkeys(PANELS, one["measures"]["likeness"])
    drawn = ElementTree.fromstring(chart(records))
    kinds = [circle.get("class") for circle in drawn.iter("{http://www.w3.org/2000/svg}circle")]
    assert (kinds.count("mean"), kinds.count("one")) == (len(PANELS) * 2, len(PANELS) * 15)


def test_seeds_are_drawn_and_subjects_are_not() -> None:
    """Subjects that differ by whole numbers do not widen the interval of their mean."""
    found = {(subject, seed): number + seed / 10 for number, subject in enumerate(SUBJECTS) for seed in SEEDS}
    mean, low, high = bootstrap(found)
    assert mean == pytest.approx(1.15)
    deviation = (0.0125 / len(SEEDS) / len(SUBJECTS)) ** 0.5  # 0.0125: the variance of 0, 0.1, 0.2, 0.3
    assert (low, high) == pytest.approx((mean - 1.96 * deviation, mean + 1.96 * deviation), abs=0.006)
