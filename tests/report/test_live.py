"""The page of a run that goes on: until when it looks for a newer one, and what it says of a run that is gone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamcore.io.locks import held
from dreamcore.io.system import process_started
from dreamcore.report import collect, write_report
from dreamcore.report.collect import LONGEST_WAIT, SHORTEST_WAIT
from dreamcore.runs.status import Status, now, this_host

from .test_report import Page, picture

VALIDATED: dict[str, Any] = {"validation_prompt": "a sks mug", "validation_steps": 100, "max_train_steps": 1000}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run at work, in this process."""
    picture(tmp_path / "samples" / "step-000000-0.png", 3)
    write(tmp_path, VALIDATED)
    with held(tmp_path):
        yield tmp_path


def write(run: Path, settings: dict[str, Any], extras: dict[str, Any] | None = None, **status: Any) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    (run / "report_data.json").write_text(json.dumps({"state": "not ended", "ended": False, **(extras or {})}))
    pid = os.getpid()
    own = {"host": this_host(), "process": pid, "process_started": process_started(pid), "written": now()}
    Status(**{"state": "training", "update": 200, "total_updates": 1000, **own, **status}).write(run)


def page(run: Path) -> Page:
    return Page(write_report(run)[0].read_text(encoding="utf-8"))


def wait(run: Path) -> timedelta:
    live = collect(run).live
    assert live is not None
    return live.until - live.written


def test_it_looks_for_a_newer_page_while_the_run_lasts(run: Path) -> None:
    write(run, VALIDATED, updates_per_second=0.5)
    found = page(run)
    (root,) = found.all("html")
    live = collect(run).live
    assert live is not None and root["data-seconds"] == "15"
    assert int(root["data-until"]) / 1000 == pytest.approx(live.until.timestamp(), abs=5)
    assert {"live", "silent"} <= {p.get("id") for p in found.all("p")}
    assert "training, update 200 of 1000" in found.text
    for identity in re.findall(r'getElementById\("(\w+)"\)', found.script):
        assert identity in {attributes.get("id") for _, attributes in found.elements}


@pytest.mark.parametrize(
    ("settings", "status", "seconds"),
    [
        ({}, {"updates_per_second": 0.5}, 3 * 100 / 0.5),
        ({}, {"updates_per_second": 0.5, "update": 990}, 3 * 10 / 0.5),
        ({"validation_prompt": None}, {"updates_per_second": 0.5}, 3 * 800 / 0.5),
        ({"validation_steps": 10**6}, {"updates_per_second": 1e-3}, 10**9),
        ({}, {}, 10**9),  # nobody knows yet how fast it is
    ],
)
def test_it_waits_three_times_as_long_as_the_next_one_takes(
    settings: dict[str, Any], status: dict[str, Any], seconds: float, run: Path
) -> None:
    write(run, VALIDATED | settings, **status)
    assert wait(run) == min(LONGEST_WAIT, SHORTEST_WAIT + timedelta(seconds=seconds))


def test_the_page_of_a_run_that_has_ended_looks_for_none(run: Path) -> None:
    write(run, VALIDATED, {"ended": True, "state": "finished, 1,000 of 1,000 updates done"})
    found = page(run)
    assert found.all("html") == [{"lang": "en"}] and "live" not in {p.get("id") for p in found.all("p")}
    assert "finished, 1,000 of 1,000 updates done" in found.text


def test_of_a_run_that_is_dead_it_looks_for_none(tmp_path: Path) -> None:
    write(tmp_path, VALIDATED, process=2**22 + 1)
    found = page(tmp_path)
    assert found.all("html") == [{"lang": "en"}]
    assert "dead (its process is gone without a word" in found.text
    assert f"dreambooth train --config {tmp_path}/config.yaml --resume_from_checkpoint latest" in found.text


def test_a_run_of_before_there_was_a_status_says_what_it_noted(tmp_path: Path) -> None:
    (tmp_path / "report_data.json").write_text('{"state": "finished, 4 of 4 updates done"}')
    data = collect(tmp_path)
    assert (data.state, data.live, data.status) == ("finished, 4 of 4 updates done", None, None)
