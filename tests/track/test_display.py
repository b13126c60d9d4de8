"""Work that takes a while: who is told, what a terminal shows of it, and the lines where there is none."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from dreamcore.errors import ConfigError
from dreamcore.io.hashing import LARGE, file_sha256
from dreamcore.io.progress import Work, each, progress, told
from dreamcore.track import LogFile, Trackers, verbosity
from dreamcore.track.display import Display, counted, showing, shows_progress
from dreamcore.track.files import warnings_in


class Account:
    """Somebody who keeps account of work."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def began(self, work: Work) -> None:
        self.told.append(("began", work.what, work.total))

    def changed(self, work: Work) -> None:
        self.told.append((work.done,))

    def finished(self, work: Work, *, failed: bool) -> None:
        self.told.append(("finished", work.done, failed))


def plain(patience: float = 0, clock: Any = lambda: 0.0) -> tuple[Display, io.StringIO]:
    stream = io.StringIO()
    return Display(RichConsole(file=stream, width=60), clock, patience), stream


def terminal(width: int, **more: Any) -> tuple[Display, RichConsole]:
    stream = io.StringIO()
    console = RichConsole(file=stream, width=width, force_terminal=True, legacy_windows=False, _environ={}, **more)
    return Display(console, patience=0), console


def test_who_is_told_hears_of_the_work_within_and_of_no_other() -> None:
    account, other = Account(), Account()
    with told(account):
        with told(other), progress("making images", 3) as step:
            step()
            step(2)
        assert list(each("ab", "reading", 2)) == ["a", "b"]
        with pytest.raises(ValueError, match="bad"), progress("loading"):
            raise ValueError("bad")
    with progress("unheard", 2) as step:
        step()
        assert not step.is_shown
    assert other.told == [("began", "making images", 3), (1,), (3,), ("finished", 3, False)]
    rest = account.told[len(other.told) :]
    assert rest[:4] == [("began", "reading", 2), (1,), (2,), ("finished", 2, False)]
    assert rest[4:] == [("began", "loading", None), ("finished", 0, True)]


def test_steps_of_many_threads_are_all_counted() -> None:
    with told(Account()), progress("hashing", 4000) as step:
        threads = [threading.Thread(target=lambda: [step() for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert step.done == 4000


def test_plain_lines_come_at_the_start_at_intervals_and_at_the_end() -> None:
    now = [0.0]
    display, stream = plain(clock=lambda: now[0])
    with told(display), progress("class images", 5) as step:
        for second in (4.0, 9.0, 14.0, 15.0, 16.0):  # a line at 0, the next no sooner than at 10
            now[0] = second
            step()
    lines = [line.split("  ")[0] for line in stream.getvalue().splitlines()]
    assert lines[:2] == ["class images: 0 of 5", "class images: 3 of 5"]
    assert lines[2].startswith("class images: 5 of 5, done in 0.")
    assert len(lines) == 3
    assert "\x1b" not in stream.getvalue()


def test_nothing_is_said_of_what_is_done_at_once_nor_of_what_failed() -> None:
    display, stream = plain(patience=60)
    with told(display), progress("hashing", 5) as step:
        step(5)
    failing, heard = plain()
    with told(failing), pytest.raises(KeyboardInterrupt), progress("loading"):
        raise KeyboardInterrupt
    assert stream.getvalue() == ""
    assert heard.getvalue() == "loading …\n"


@pytest.mark.parametrize("width", [30, 60, 120])
def test_a_bar_takes_one_line_whatever_the_width(width: int) -> None:
    stream = io.StringIO()
    console = RichConsole(file=stream, width=width)
    display = Display(console, patience=0)
    training = Work("training", 1500)
    training.done, training.seconds_left = 300, 3671.0
    training.notes = ("loss 0.1234", "lr 1.00e-04", "3.21 updates/s")
    download = Work("downloading stable-diffusion-v1-5/stable-diffusion-v1-5", 4 * 10**9, "bytes")
    download.done = 10**9
    for work in (training, download):
        display.began(work)
    stream.seek(0)
    stream.truncate()
    console.print(display.bars())
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert "1:01:11 left" in lines[0], "the time that is left is the last to go"
    assert ("300 of 1500" in lines[0]) == ("1.0 of 4.0 GB" in lines[1]) == (width > 30)
    assert ("lr 1.00e-04" in lines[0]) == (width == 120)


def test_warnings_between_bars_do_not_colour_them() -> None:
    display, console = terminal(80)
    display.began(Work("training", 4))
    display.say("low disk", "warning")
    display.close()
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1;33mwarning: low disk\x1b[0m" in output
    assert "\x1b[1;33mtraining" not in output


def test_the_cursor_of_standard_error_is_never_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    display = Display(patience=0)
    with told(display), progress("loading"):
        assert display.is_live
    assert "loading" in stream.getvalue()
    assert "\x1b[?25" not in stream.getvalue(), "so it is there, whatever ends the process"


def test_what_is_said_when_quiet_and_when_verbose() -> None:
    said = {}
    for level in ("quiet", "normal", "verbose"):
        with verbosity(level):  # type: ignore[arg-type]
            display, stream = plain(patience=0 if level == "quiet" else 60)
        for kind in ("detail", "info", "warning", "result"):
            display.say(kind, kind)  # type: ignore[arg-type]
        with told(display), progress("hashing", 2) as step:
            step(2)
        said[level] = stream.getvalue().splitlines()
    assert said["quiet"] == ["result"]
    assert said["normal"] == ["info", "warning: warning", "result"]
    assert said["verbose"][:4] == ["detail", "info", "warning: warning", "result"]
    assert said["verbose"][4].startswith("hashing: 2 of 2, done in 0.")
    with pytest.raises(ConfigError, match="verbosity: 'loud' is not one of quiet, normal, verbose"), verbosity("loud"):  # type: ignore[arg-type]
        pass


def test_one_display_shows_all_and_other_processes_none() -> None:
    seen = []

    @shows_progress
    def within() -> None:
        with progress("loading") as step:
            seen.append(step._showers)

    with showing():
        within()
        within()
    within()
    with showing(main_process=False), progress("loading") as step:
        assert not step.is_shown
    (first,), (second,), (third,) = seen
    assert first is second
    assert third is not first


def test_the_log_keeps_how_long_work_took_and_a_warning_once(tmp_path: Path) -> None:
    from .test_trackers import info

    log, trackers = LogFile(), Trackers()
    trackers.append(log)
    log.start(info(tmp_path))
    with told(log), progress("encoding images", 7) as step:
        step(7)
    for text in ("low disk", "two\nlines", "low disk"):
        trackers.warn(text)
    trackers.detail("peak memory: 1 GiB")
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "DETAIL  encoding images: 7 of 7, done in 0." in text
    assert "DETAIL  peak memory: 1 GiB" in text
    assert text.count("low disk") == 1
    resumed = LogFile()
    resumed.start(info(tmp_path, first=4))
    resumed.message("low disk", "warning")
    resumed.message("of the second part", "warning")
    assert warnings_in(tmp_path / "log.txt") == ["low disk", "two\nlines", "of the second part"]
    assert warnings_in(tmp_path / "none.txt") == []


def test_hashing_a_large_file_tells_how_far_it_is(tmp_path: Path) -> None:
    import hashlib

    content = b"\x01" * (LARGE + 5)
    (tmp_path / "large").write_bytes(content)
    account = Account()
    with told(account):
        assert file_sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()
    assert account.told[0] == ("began", "hashing large", LARGE + 5)
    assert account.told[-1] == ("finished", LARGE + 5, False)
    assert len(account.told) > 10


@pytest.mark.parametrize(
    ("done", "total", "unit", "words"),
    [
        (12, 100, "", "12 of 100"),
        (12, None, "", "12"),
        (1_230_000_000, 3_400_000_000, "bytes", "1.2 of 3.4 GB"),
        (500, 900, "bytes", "0.5 of 0.9 kB"),
        (2_000_000, None, "bytes", "2.0 MB"),
    ],
)
def test_counts_in_words(done: int, total: int | None, unit: Any, words: str) -> None:
    work = Work("", total, unit)
    work.done = done
    assert counted(work) == words
