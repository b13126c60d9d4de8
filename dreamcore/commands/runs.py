"""Watching runs and steering them from outside: which there are, stopping one, and images of one now.

No server and no signal: a run writes what it does into its folder, and finds there what is asked of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from ..errors import ConfigError, RunError
from ..io.files import disk_trouble
from ..io.locks import is_held
from ..runs.next_steps import to_go_on as command_to_go_on
from ..runs.requests import Request, new_request
from ..runs.status import now
from ..runs.watching import WatchedRun, find_runs, look_at
from ..track.pace import speed

POLL_SECONDS = 0.2
"""Between two looks at a run that is waited for."""
LEAVING_SECONDS = 30.0
"""A run that says that it has ended has so long to let go of its folder."""
T = TypeVar("T")


def in_words(runs: Sequence[WatchedRun]) -> str:
    """A table of runs, with the reason below each that has one."""
    rows = [("run", "state", "update", "speed", "left", "memory", "heard"), *map(_row, runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for number, run in reversed(list(enumerate(runs, 1))):
        if run.status.reason and run.state != "stopped":
            lines.insert(number + 1, f"    {run.state}: {run.status.reason}")
    if any(run.state in ("dead", "stopped") for run in runs):
        lines += ["", f"With a run that is dead or stopped, {to_go_on(Path('RUN'))}"]
    return "\n".join(lines)


def _row(run: WatchedRun) -> tuple[str, ...]:
    status = run.status
    total = "" if status.total_updates is None else f"/{status.total_updates}"
    rate, left, memory = status.updates_per_second, status.seconds_left, status.memory_bytes
    return (
        str(run.folder),
        run.state,
        f"{status.update}{total}",
        speed(rate) if rate and run.running else "",
        str(timedelta(seconds=round(left))) if left is not None and run.running else "",
        f"{memory / 2**30:.2f} GiB" if memory else "",
        _ago(now() - status.written),
    )


def _ago(age: timedelta) -> str:
    seconds = max(0, round(age.total_seconds()))
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def to_go_on(folder: Path) -> str:
    """The command that goes on with a run, in words."""
    return f"go on with {command_to_go_on(folder)}"


def find_run(run: Path) -> WatchedRun:
    """The run in a folder, or the only one below it that is at work.

    Raises:
        ConfigError: there is none, or there are several.
    """
    found = look_at(run)
    if found is not None:
        return found
    running = [one for one in find_runs([run]) if one.running]
    if len(running) == 1:
        return running[0]
    if running:
        listed = ", ".join(str(one.folder) for one in running)
        raise ConfigError(f"{run}: holds several runs that are at work; name one of {listed}")
    raise ConfigError(f"{run}: holds no run, and none that is at work below; `dreambooth runs` lists them")


def stop(run: Path, timeout: float | None, say: Callable[[str], None]) -> WatchedRun:
    """Ask a run to stop once it has saved, and wait until it has; the request stands whoever stops waiting.

    Args:
        timeout: seconds to wait at most; None: as long as it takes.
        say: told what is waited for.

    Returns:
        The run as it has ended; one that had ended before is left as it is.

    Raises:
        ConfigError: no such run, its process is gone, or its folder cannot be written.
        RunError: it did not stop in that time, or it failed in stopping.
    """
    found = find_run(run)
    if found.state == "dead":
        raise ConfigError(f"{found.said}; there is nothing to stop; {to_go_on(found.folder)}")
    if not found.running:
        return found
    first = "its first update" if found.state == "preparing" else "the update under way"
    say(f"{found.said}; it stops after {first}, once it has saved (Ctrl-C ends the waiting, and the request stands)")
    request = _put(new_request(found.folder, "stop"))

    def ended(seen: WatchedRun) -> WatchedRun | None:
        return None if seen.running else seen

    try:
        found = _wait(found.folder, request, ended, timeout)
    except TimeoutError:
        raise RunError(f"{found.folder}: has not stopped within {timeout:g} s; the request stands") from None
    until = time.monotonic() + LEAVING_SECONDS
    while is_held(found.folder) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    request.withdraw()
    if found.state not in ("stopped", "finished"):
        raise RunError(found.said)
    return found


def sample(run: Path, prompt: str | None, timeout: float | None, say: Callable[[str], None]) -> list[Path]:
    """Ask a run for images now, by the model as far as it is trained, and wait for them; training is not changed by it.

    Args:
        prompt: their words; None for those of its validation.
        timeout: seconds to wait at most, after which the request is withdrawn; None: as long as it takes.
        say: told what is waited for.

    Raises:
        ConfigError: no such run, it is not at work, it has no validation prompt, or its folder cannot be written.
        RunError: the images could not be made, or not in that time, or the run ended before.
    """
    found = find_run(run)
    if not found.running:
        raise ConfigError(
            f"{found.said}; a run makes images while it trains, `dreambooth generate` with a model that is finished"
        )
    say(f"{found.said}; it makes them after the update under way (Ctrl-C withdraws the request)")
    request = _put(new_request(found.folder, "sample", prompt))
    try:
        answer = _wait(found.folder, request, lambda seen: request.read_answer(), timeout)
    except TimeoutError:
        raise RunError(f"{found.folder}: no images within {timeout:g} s; the request is withdrawn") from None
    finally:
        request.withdraw()
    if "error" in answer:
        raise (ConfigError if answer.get("to_mend") else RunError)(f"{found.folder}: {answer['error']}")
    return [found.folder / name for name in answer["files"]]


def _put(request: Request) -> Request:
    try:
        request.ask()
    except OSError as error:
        reason = disk_trouble(error) or error.strerror
        raise ConfigError(f"{request.file.parent}: {reason}; a request to the run is written there") from None
    return request


def _wait(folder: Path, request: Request, answered: Callable[[WatchedRun], T | None], timeout: float | None) -> T:
    """What `answered` makes of the run, as soon as it makes anything.

    Raises:
        RunError: the run has ended, or is gone, without an answer.
        TimeoutError: there was none in that time.
    """
    until, again = float("inf") if timeout is None else time.monotonic() + timeout, True
    while True:
        seen = look_at(folder)
        if seen is None:
            raise RunError(f"{folder}: is no run's folder any more")
        if (answer := answered(seen)) is not None:
            return answer
        if not seen.running:
            raise RunError(f"{seen.said}, before it could answer")
        if again and request.lost():
            again = False
            _put(request)
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(POLL_SECONDS)
