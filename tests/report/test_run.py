"""A run as a program and a notebook see it: numbers as arrays, pictures, a card; and a folder that is no run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.errors import ConfigError
from dreamcore.report.run import Metrics, Report
from dreamcore.runs.status import Status, now

RECORDS: list[dict[str, Any]] = [
    {"step": 1, "loss": 0.5, "lr": 1e-4},
    {"step": 2, "loss": None, "lr": 1e-4, "skipped": 1},
    {"step": 3, "loss": 0.25, "lr": 5e-5},
]
ODD = '<img src="http://far.away/x.png" onerror=alert(1)>&"\''


def write_run(folder: Path, state: Any = "stopped", reason: str | None = "by SIGINT") -> Path:
    """What a run leaves, with words that mean something in HTML wherever words can stand."""
    (folder / "samples").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    (folder / "validation.jsonl").write_text(
        '{"step": 0, "validation_loss": 0.3}\n{"step": 3, "validation_loss": 0.2}\n'
    )
    (folder / "config.yaml").write_text(
        json.dumps({"max_train_steps": 9, "instance_prompt": ODD, "validation_prompt": ODD})
    )
    for update, seed in [(0, 0), (0, 1), (3, 1), (3, 0), (10, 0)]:
        picture = Image.new("RGB", (40, 30), (10 * update, 50 * seed, 7))
        picture.save(folder / "samples" / f"step-{update:06}-{seed}.png")
    Status(state=state, reason=reason, update=3, total_updates=9, written=now()).write(folder)
    return folder


def test_columns_are_arrays_and_rows_records() -> None:
    metrics = Metrics(RECORDS)
    assert metrics.names == ["step", "loss", "lr", "skipped"]
    np.testing.assert_array_equal(metrics["step"], [1, 2, 3])
    np.testing.assert_array_equal(metrics["loss"], [0.5, np.nan, 0.25])
    np.testing.assert_array_equal(metrics["skipped"], [np.nan, 1, np.nan])
    assert (metrics["step"].dtype, metrics["loss"].dtype) == (np.int64, np.float64)
    assert metrics[-1] == RECORDS[-1] and list(metrics) == RECORDS == metrics and len(metrics) == 3
    assert isinstance(metrics[1:], Metrics) and metrics[1:]["lr"].tolist() == [1e-4, 5e-5]
    with pytest.raises(KeyError, match="lss: there are step, loss, lr, skipped"):
        metrics["lss"]


def test_a_run_that_has_measured_nothing_yet_has_empty_columns() -> None:
    metrics = Metrics([])
    assert metrics["loss"].shape == metrics["step"].shape == (0,) and not metrics and metrics.names == []


def test_a_run_is_opened_as_it_lies_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "checkpoint-3").mkdir()
    run = dreamcore.open_run(str(folder))
    assert (run.folder, run.updates, run.exit_code, run.stopped_by, run.state) == (folder, 3, 130, "SIGINT", "stopped")
    assert run.metrics["loss"][0] == 0.5
    assert run.validation["validation_loss"].tolist() == [0.3, 0.2]
    assert {u: [f.name for f in files] for u, files in run.images.items()} == {
        0: ["step-000000-0.png", "step-000000-1.png"],
        3: ["step-000003-0.png", "step-000003-1.png"],
        10: ["step-000010-0.png"],
    }
    assert [p.getpixel((0, 0)) for p in run.pictures(3)] == [(30, 0, 7), (30, 50, 7)]
    assert run.pictures()[0].getpixel((0, 0)) == (100, 0, 7), "the last ones"
    assert run.settings["max_train_steps"] == 9
    assert Path(run.report) == folder / "report.html" and "latest" in run.next_steps.go_on
    with pytest.raises(ConfigError, match="no validation images of update 4; there are some of 0, 3, 10"):
        run.pictures(4)


@pytest.mark.parametrize(
    ("state", "reason", "code", "by"),
    [
        ("finished", None, 0, ""),
        ("stopped", "by dreambooth stop", 143, "dreambooth stop"),
        ("stopped", "by the callback Early: enough", 143, "the callback Early: enough"),
        ("failed", "out of memory", 1, ""),
        ("training", None, 1, ""),  # and its process is gone
    ],
)
def test_how_it_ended_is_told(tmp_path: Path, state: str, reason: str | None, code: int, by: str) -> None:
    run = dreamcore.open_run(write_run(tmp_path / "run", state, reason))
    assert (run.exit_code, run.stopped_by) == (code, by)
    assert run.state == ("dead" if state == "training" else state)


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one")
    with pytest.raises(ConfigError, match="missing: no such folder"):
        dreamcore.open_run(tmp_path / "missing")
    with pytest.raises(ConfigError, match="runs: holds no run; runs below it: .*one"):
        dreamcore.open_run(tmp_path / "runs")
    with pytest.raises(ConfigError, match="samples: holds no run; a run's folder holds its status.json"):
        dreamcore.open_run(tmp_path / "runs" / "one" / "samples")
    run = dreamcore.open_run(tmp_path / "runs" / "one")
    (run.folder / "status.json").unlink()
    (run.folder / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match="holds no run"):
        print(run.state)
    assert "holds no run any more" in run._repr_html_()
    assert run.metrics["loss"].size == 0


class Elements(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_notebook_shows_a_card_that_asks_nobody_for_anything(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "<b>run")
    html = dreamcore.open_run(folder)._repr_html_()
    found = Elements(html)
    assert {tag for tag, _ in found.tags} <= {
        *("div", "style", "b", "span", "dl", "dt", "dd", "code", "img"),
        *("svg", "title", "desc", "clippath", "rect", "g", "line", "text", "path", "circle"),
    }
    sources = [attributes["src"] or "" for tag, attributes in found.tags if tag == "img"]
    assert len(sources) == 3, "before (two), and after"
    assert all(source.startswith("data:image/") for source in sources)
    assert not any(name.startswith("on") or name == "href" for _, attributes in found.tags for name in attributes)
    assert str(folder) in found.words and "stopped (by SIGINT), update 3 of 9" in found.words and ODD in found.words
    style = found.words[: found.words.index(str(folder))]
    rules = re.findall(r"^([^{\n]+)\{", style, re.MULTILINE)
    assert rules and all(part.strip().startswith(".dreambooth-run") for rule in rules for part in rule.split(","))
    assert "url(" not in style and len(html) < 100_000


def test_a_notebook_shows_the_report_in_a_frame_of_its_own(tmp_path: Path) -> None:
    page = f'<!DOCTYPE html><p title="{ODD[-2:]}">A & B</p>'
    (tmp_path / "report.html").write_text(page)
    ((tag, attributes),) = Elements(Report(tmp_path / "report.html")._repr_html_()).tags
    assert tag == "iframe" and attributes["srcdoc"] == page
    assert attributes["sandbox"] is None, "no script of it runs, and it reaches nothing"
    assert "No such file" in Report(tmp_path / "none<.html")._repr_html_()
    assert "none<" not in Report(tmp_path / "none<.html")._repr_html_()
