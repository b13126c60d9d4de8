"""The fan-out, its console and log, and which trackers a setting names."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from dreamcore.errors import ConfigError, RunError
from dreamcore.track import Console, LogFile, MetricsFile, RunInfo, Trackers, factory, make_trackers
from dreamcore.track.display import Display


class Recorder:
    """A tracker that remembers its events, and raises `error` at the event `at`."""

    def __init__(self, at: str = "", error: BaseException | None = None) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._at, self._error = at, error

    def __getattr__(self, event: str) -> Any:
        def receive(*arguments: Any) -> None:
            self.events.append((event, *arguments))
            if event == self._at and self._error is not None:
                raise self._error

        return receive


def info(folder: Path, total: int = 10, first: int = 1) -> RunInfo:
    return RunInfo(folder, total_updates=total, first_update=first, settings={"seed": 0}, logging_dir=folder / "logs")


def record(step: int, loss: float = 0.5, seconds: float = 2.0) -> dict[str, float | int]:
    return {"step": step, "loss": loss, "loss_instance": loss, "lr": 1e-4, "grad_norm": 1.0, "seconds": seconds}


def test_every_event_reaches_every_tracker(tmp_path: Path) -> None:
    trackers = Trackers([first := Recorder(), second := Recorder()])
    start = info(tmp_path)
    trackers.start(start)
    trackers.update(record(1))
    trackers.scalars(1, {"validation_loss": 0.2})
    trackers.images(1, [Path("a.png")], "a mug")
    trackers.message("careful", "warning")
    trackers.close("finished")
    assert (
        first.events
        == second.events
        == [
            ("start", start),
            ("update", record(1)),
            ("scalars", 1, {"validation_loss": 0.2}),
            ("images", 1, [Path("a.png")], "a mug"),
            ("message", "careful", "warning"),
            ("close", "finished"),
        ]
    )


def test_a_tracker_that_fails_is_named_once_and_left_out() -> None:
    trackers = Trackers([broken := Recorder("update", ConnectionError("no network")), healthy := Recorder()])
    for step in (1, 2, 3):
        trackers.update(record(step))
    assert [event[0] for event in broken.events] == ["update", "close"]
    warnings = [event for event in healthy.events if event[0] == "message"]
    assert warnings == [("message", "Recorder failed and is left out from here on: no network", "warning")]
    assert [event[1]["step"] for event in healthy.events if event[0] == "update"] == [1, 2, 3]


def test_trackers_that_fail_at_the_warning_itself_do_not_stop_the_run() -> None:
    errors = [Recorder("update", OSError("disk")), Recorder("message", OSError("pipe")), Recorder()]
    trackers = Trackers(errors)
    trackers.update(record(1))
    assert list(trackers) == errors[2:]


@pytest.mark.parametrize("error", [RunError("disk full"), ConfigError("bad"), KeyboardInterrupt()])
def test_what_must_stop_the_run_does(error: BaseException) -> None:
    with pytest.raises(type(error)):
        Trackers([Recorder("update", error)]).update(record(1))


def test_close_reaches_all_even_where_one_stops_the_run() -> None:
    trackers = Trackers([Recorder("close", RunError("disk full")), last := Recorder()])
    with pytest.raises(RunError, match="disk full"):
        trackers.close("finished")
    assert last.events == [("close", "finished")]


def test_plain_lines_come_at_intervals_and_at_the_end(tmp_path: Path) -> None:
    now = [0.0]
    stream = io.StringIO()
    console = Console(Display(RichConsole(file=stream, width=40), clock=lambda: now[0]))
    console.start(info(tmp_path, total=8))
    for step in range(1, 9):
        now[0] = 4.0 * step  # a line at 4 s, next allowed at 14 s: 16 s, then at 26 s: 28 s, and the last
        console.update(record(step))
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/8", "4/8", "7/8", "8/8"]
    assert lines[0] == "update 1/8  loss 0.5000  lr 1.00e-04  2.00 s/update  0:00:14 left"
    assert "\x1b" not in stream.getvalue()


def test_loss_shown_is_the_mean_of_recent_updates_and_time_left_that_of_this_process(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(Display(RichConsole(file=stream, width=200), clock=lambda: 0.0))
    console.start(info(tmp_path, total=140, first=101))
    for step in range(101, 141):
        console.update(record(step, loss=step - 100, seconds=0.5))
    # Updates 121 to 140 have losses 21 to 40.
    assert stream.getvalue().splitlines()[-1] == (
        "update 140/140  loss 30.5000  lr 1.00e-04  2.00 updates/s  0:00:00 left"
    )
    assert "0:00:20 left" in stream.getvalue().splitlines()[0]  # 39 updates of half a second


def test_a_terminal_gets_a_bar_with_loss_rate_and_time_left(tmp_path: Path) -> None:
    stream = io.StringIO()
    screen = RichConsole(file=stream, width=120, force_terminal=True, legacy_windows=False, _environ={})
    console = Console(Display(screen, patience=0))
    console.start(info(tmp_path, total=4))
    console.update(record(1))
    console.message("low [bold]disk[/bold]", "warning")
    console.update(record(2))
    console.close("finished")
    console.close("finished")
    output = stream.getvalue()
    assert "training" in output
    assert "0 of 4" in output
    assert "update 2/4  loss 0.5000  lr 1.00e-04  2.00 s/update" in output.splitlines()[-1], "what stays"
    assert "\x1b[1;33mwarning: low [bold]disk[/bold]" in output, "bold yellow, and the user's brackets as they are"
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l"), "the cursor is back"


def test_warnings_stand_out_in_plain_output_too() -> None:
    stream = io.StringIO()
    Console(Display(RichConsole(file=stream, width=20))).message("a prompt " * 10, "warning")
    assert stream.getvalue() == "warning: " + "a prompt " * 10 + "\n", "one line, whatever the width"


def test_log_has_time_level_and_the_messages_before_the_start(tmp_path: Path) -> None:
    log = LogFile()
    log.message("encoding images")
    log.start(info(tmp_path))
    log.message("two\nlines", "warning")
    log.scalars(5, {"validation_loss": 0.125})
    log.images(5, [Path("a.png"), Path("b.png")], "a mug")
    log.close("finished")
    log.close("finished")
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 1)[1] if line[0] != " " else line for line in lines] == [
        "INFO    encoding images",
        "INFO    updates 1 to 10 start",
        "WARNING two",
        "    lines",
        "INFO    update 5: validation_loss 0.125",
        "INFO    update 5: 2 images of 'a mug'",
        "INFO    run ended: finished",
    ]


def names(report_to: str) -> list[str]:
    return [type(tracker).__name__ for tracker in make_trackers(report_to, main_process=True)]


def test_which_trackers_a_setting_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "find_spec", lambda name: True)
    always = ["MetricsFile", "LogFile", "Console"]
    assert names("none") == always
    assert names("tensorboard") == [*always, "TensorBoard"]
    assert names("wandb, TensorBoard,wandb") == [*always, "WandB", "TensorBoard"]
    assert names("all") == [*always, "TensorBoard", "VisualDL", "WandB"]
    monkeypatch.setattr(factory, "find_spec", lambda name: name != "wandb")
    assert names("all") == [*always, "TensorBoard", "VisualDL"]


@pytest.mark.parametrize(
    ("report_to", "words"),
    [
        ("tensorbord", "'tensorbord' is not one of tensorboard, visualdl, wandb, all, none; did you mean tensorboard"),
        ("none,tensorboard", "'none' stands alone"),
        ("", "'' is not one of"),
        ("wandb", "needs the package wandb, which is not installed: pip install wandb"),
    ],
)
def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, report_to: str, words: str) -> None:
    monkeypatch.setattr(factory, "find_spec", lambda name: name != "wandb")
    for main_process in (True, False):
        with pytest.raises(ConfigError) as caught:
            make_trackers(report_to, main_process=main_process)
        assert str(caught.value).startswith("report_to: ")
        assert words in str(caught.value)


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    trackers = make_trackers("none", main_process=False)
    trackers.start(info(tmp_path))
    trackers.update(record(1))
    trackers.close("finished")
    assert list(tmp_path.iterdir()) == []


def test_optional_trackers_are_imported_only_when_a_run_starts() -> None:
    code = (
        "import sys; from dreamcore.track import make_trackers; make_trackers('tensorboard', main_process=True);"
        "assert not {'tensorboardX', 'visualdl', 'wandb', 'torch', 'paddle'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_metrics_file_that_cannot_be_opened_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written"):
        Trackers([MetricsFile()]).start(info(tmp_path / "absent"))
