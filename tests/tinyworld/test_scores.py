"""The judge's scores reach a run's report, and tell the subject from other things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamcore.errors import ConfigError
from dreamcore.tinyworld import SUBJECTS
from dreamcore.tinyworld.scores import add_to_report

MUG, CAR = SUBJECTS["zigzag-mug"], SUBJECTS["chequered-car"]


def test_pictures_of_the_subject_are_counted_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for step, subject in ((0, CAR), (20, MUG)):
        for number, picture in enumerate(subject.pictures(4)):
            picture.save(tmp_path / "samples" / f"step-{step:06}-{number}.png")
    (tmp_path / "report_data.json").write_text(json.dumps({"timing": {"in all, seconds": 3}}))
    found = add_to_report(tmp_path, MUG)
    assert found["subject, before"].startswith("0 of 4")
    assert found["subject, after"].startswith("4 of 4")
    assert (found["mug, before"], found["mug, after"]) == ("0 of 4 images", "4 of 4 images")
    assert found["subject, after"] in (tmp_path / "report.html").read_text("utf-8")
    assert json.loads((tmp_path / "report_data.json").read_text())["timing"] == {"in all, seconds": 3}


def test_a_run_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="validation_prompt"):
        add_to_report(tmp_path, MUG)
