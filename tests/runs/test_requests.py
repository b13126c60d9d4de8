"""Runs that are asked, in their folder, to stop or to make images: what they do, and that nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamcore.io.names import RECORDS, REQUESTS
from dreamcore.runs import requests
from dreamcore.runs.requests import Request, new_request
from dreamcore.runs.status import read_status
from dreamcore.training import run_report

from ..support.runs import numbers
from ..support.stub_backend import StubBackend
from ..support.stub_runs import contents, train

Act = Callable[[], Any]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after each update; the report takes longer than all the rest of such a run."""
    monkeypatch.setattr(requests, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(run_report, "write_report", lambda folder: None)


def at_update(number: int, act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something while an update is made."""
    whole = StubBackend.train_step

    def step(self: StubBackend, *given: Any) -> None:
        whole(self, *given)
        if self.updates == number:
            act()

    monkeypatch.setattr(StubBackend, "train_step", step)


def asked(folder: Path, *prompts: str | None) -> tuple[list[Request], Act]:
    """Requests for images, and what puts them."""
    found = [new_request(folder, "sample", prompt) for prompt in prompts]
    return found, lambda: [request.ask() for request in found]


def leftovers(folder: Path) -> list[str]:
    return [file.name for file in (folder / RECORDS / REQUESTS).glob("*")]


def test_it_stops_after_the_update_and_goes_on_from_there(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(stub_model, drawn, tmp_path / "whole", max_train_steps=6)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        at_update(3, new_request(out, "stop").ask, patch)
        run = train(stub_model, drawn, out, max_train_steps=6)
    assert (run.updates, run.exit_code, run.stopped_by) == (3, 143, "dreambooth stop")
    status = read_status(out)
    assert status is not None
    assert (status.state, status.reason, status.update) == ("stopped", "by dreambooth stop", 3)
    assert status.checkpoint == 3 and (out / "checkpoint-3").is_dir()
    assert leftovers(out) == []
    resumed = train(stub_model, drawn, out, max_train_steps=6, resume_from_checkpoint="latest")
    assert (resumed.updates, resumed.exit_code, resumed.stopped_by) == (6, 0, "")
    assert numbers(resumed) == numbers(whole)


def test_images_are_made_outside_the_schedule(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(stub_model, drawn, tmp_path / "whole")
    out = tmp_path / "out"
    found, put = asked(out, None, "a mug in Rome", "a mug at sea")
    with monkeypatch.context() as patch:
        at_update(3, put, patch)
        run = train(stub_model, drawn, out)
    answers = [request.read_answer() for request in found]
    assert answers == [
        {"update": 3, "files": [f"samples/{name}-{k}.png" for k in (0, 1)]}
        for name in ("step-000003", "asked-000003-1", "asked-000003-2")
    ]
    assert numbers(run) == numbers(whole)
    new = contents(out).keys() - contents(whole.folder).keys()
    assert new - {f"{RECORDS}/{REQUESTS}/{r.answer_file.name}" for r in found} == {
        name for answer in answers if answer for name in answer["files"]
    }
    assert "images of 'a mug in Rome', as asked" in (out / "log.txt").read_text()
    train(stub_model, drawn, out, overwrite_output_dir=True)
    assert sorted(f.name for f in (out / "samples").glob("*")) == sorted(
        f.name for f in (whole.folder / "samples").glob("*")
    ), "they were on record, and have gone with the run that they were of"
    assert leftovers(out) == [], "nobody has fetched the answers"


def test_a_run_without_a_validation_prompt_says_so(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, put = asked(tmp_path / "out", None, "{instance_prompt} at sea")
    at_update(3, put, monkeypatch)
    settings: dict[str, Any] = {"validation_prompt": None, "validation_steps": None, "num_validation_images": None}
    train(stub_model, drawn, tmp_path / "out", **settings)
    refused, made = (request.read_answer() for request in found)
    assert refused is not None and refused["to_mend"]
    assert "no validation_prompt; give the words of the images: --prompt" in refused["error"]
    assert made is not None and len(made["files"]) == 4


@pytest.mark.parametrize(
    ("error", "words"),
    [(MemoryError("no room"), "out of memory of the host while validating"), (ValueError("odd"), "ValueError: odd")],
)
def test_images_that_cannot_be_made_end_nothing(
    error: Exception,
    words: str,
    stub_model: Path,
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    found, put = asked(tmp_path / "out", "a mug at sea")
    at_update(1, lambda: [put(), monkeypatch.setattr(StubBackend, "sample", fail)], monkeypatch)
    settings: dict[str, Any] = {"validation_prompt": None, "validation_steps": None, "num_validation_images": None}
    assert train(stub_model, drawn, tmp_path / "out", **settings).updates == 4
    answer = found[0].read_answer()
    assert answer is not None and answer["error"].startswith(words) and not answer["to_mend"]
    assert "images that were asked for could not be made" in (tmp_path / "out/log.txt").read_text()


def test_an_answer_that_finds_no_room_ends_nothing(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    made: list[int] = []
    whole = StubBackend.sample
    monkeypatch.setattr(StubBackend, "sample", lambda self, r: made.append(1) or whole(self, r))
    _, put = asked(tmp_path / "out", "a mug at sea")
    at_update(1, lambda: [put(), monkeypatch.setattr(requests, "write_atomically", full)], monkeypatch)
    settings: dict[str, Any] = {"validation_prompt": None, "validation_steps": None, "num_validation_images": None}
    assert train(stub_model, drawn, tmp_path / "out", **settings).updates == 4
    assert len(made) == 1, "and is made once"


def test_what_is_no_request_is_passed_over(tmp_path: Path) -> None:
    place = tmp_path / RECORDS / REQUESTS
    place.mkdir(parents=True)
    files = {
        "1-1.json": "{",
        "1-2.json": "[]",
        "1-3.json": '{"action": "erase"}',
        "1-4.json": "\xff",
        "1-5.json": '{"action": "sample", "prompt": 3}',
        "stop.json": '{"action": "stop"}',
        "1-6.answer.json": '{"action": "stop"}',
        ".1-7.json.3.tmp": '{"action": "stop"}',
    }
    for name, text in files.items():
        (place / name).write_text(text, encoding="latin-1")
    (place / "1-8.json").mkdir()
    assert requests.Inbox(tmp_path).look() == []


def test_what_was_asked_of_an_earlier_run_is_not_asked_of_the_next(
    stub_model: Path, drawn: Path, tmp_path: Path
) -> None:
    place = tmp_path / "out" / RECORDS / REQUESTS
    place.mkdir(parents=True)
    (place / "1-2.json").write_text(json.dumps({"action": "stop"}))
    assert train(stub_model, drawn, tmp_path / "out").updates == 4
    assert leftovers(tmp_path / "out") == []


def test_it_looks_no_more_often_than_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "LOOK_SECONDS", 1.0)
    clock = [100.0]
    monkeypatch.setattr(requests.time, "monotonic", lambda: clock[0])
    (tmp_path / RECORDS).mkdir()
    inbox = requests.Inbox(tmp_path)
    assert inbox.look() == []
    request = new_request(tmp_path, "stop")
    request.ask()
    for clock[0], found in ((100.5, []), (101.5, [request])):
        assert inbox.look() == found
