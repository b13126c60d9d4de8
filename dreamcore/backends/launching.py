"""One run on several devices: each backend's own launcher is started, and its processes' failures are gathered.

The launchers know how to start and end processes; nothing of that is repeated here.  What they do not do is say last
what went wrong: whoever fails first leaves a note, and the note is the last thing said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import ConfigError, LostRankError, RunError
from ..io import system
from .installed import RANK_VARIABLES
from .launchers import GRACE_SECONDS, MACHINES, Processes, launch_command, processes_asked_for
from .machines import Machines, Watch

NOTES = "DREAMBOOTH_FAILURES"
"""Environment variable: the folder that processes of a launched run leave their failures in."""
STOPPED = "stopped"
"""Kind of a note that tells no failure."""
HEARSAY_SECONDS = 10
"""Where a process ends because another has gone, the other's machine has so long to say why."""


def run_launched(
    backend: str,
    arguments: Sequence[str],
    *,
    devices: Sequence[str] = (),
    processes: int | None = None,
    machines: Machines | None = None,
    rdzv_id: str = "",
) -> int:
    """Run `dreambooth ARGUMENTS` on several devices, to the end of every process; returns the exit code.

    Signals are handed on to the launcher, which hands them on to all.

    Args:
        machines: this one's place among several, each of which does the same with its own.
        rdzv_id: a name of this run, the same on all of them.

    Raises:
        ConfigError, RunError: what the process that failed first said, whichever it was.
    """
    with tempfile.TemporaryDirectory(prefix="dreambooth-launch-") as folder, ExitStack() as stack:
        notes, logs = Path(folder) / "failures", Path(folder) / "logs"
        notes.mkdir()
        asked = processes_asked_for(devices, processes, logs, machines)
        launch = launch_command(backend, arguments, asked)
        watch = None
        if machines:
            terms = {"rdzv_id": rdzv_id, "backend": backend, "num_processes": asked.count}
            watch = stack.enter_context(Watch(machines, terms, lambda text: print(text, file=sys.stderr, flush=True)))
        environment = os.environ | launch.environment | {NOTES: str(notes)}
        process = subprocess.Popen(launch.command, env=environment, start_new_session=True)
        received: list[int] = []

        def hand_on(number: int, frame: object) -> None:
            received.append(number)
            for told in _signal_targets(process.pid, backend, several_machines=machines is not None):
                system.hand_on(number, told)

        before = {number: signal.signal(number, hand_on) for number in system.STOPPING}
        try:
            code = _wait(process, watch)
            return _outcome(code, _read_notes(notes), asked, received, watch)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _wait(process: subprocess.Popen[bytes], watch: Watch | None) -> int:
    """The launcher's exit code.  Where another machine has failed, or is gone, its processes have a while to end."""
    if watch is None:
        return process.wait()
    while watch.trouble(0.2) is None:
        if (code := process.poll()) is not None:
            return code
    try:
        return process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        system.kill_all(process.pid)
        return process.wait()


def _outcome(
    code: int, notes: Sequence[Mapping[str, object]], asked: Processes, received: Sequence[int], watch: Watch | None
) -> int:
    """The command's exit code, once this machine's processes have ended.

    Raises:
        ConfigError, RunError: what failed first, here or on another machine.
    """
    failures = [note for note in notes if note["kind"] != STOPPED]
    error = _first_failure(failures, asked.ranks, stopped=bool(received)) if code else None
    if watch:
        if code and (elsewhere := watch.trouble(0 if received or _knows_why(failures) else HEARSAY_SECONDS)):
            raise elsewhere
        if error:
            watch.failed(error)
        else:
            watch.ended(GRACE_SECONDS)
    if error:
        raise error
    asked_for = next((int(str(note["code"])) for note in notes if note["kind"] == STOPPED), 0)
    return 128 + received[0] if code and received else code or asked_for


WORKERS = {
    "mindspore": ("MS_ROLE", "MS_WORKER"),
    "paddle": ("PADDLE_TRAINER_ID", None),
    "torch": ("TORCHELASTIC_RUN_ID", None),
}
"""Backend -> a variable that its launcher's workers have, and its value.

msrun answers SIGTERM by ending alone, and SIGINT by killing its workers; paddle.distributed.launch sends SIGTERM twice.
torchrun hands signals on well, but on several machines the others' would wait minutes for one that ends so.
"""


def _signal_targets(launcher: int, backend: str, *, several_machines: bool) -> list[int]:
    """The processes that a signal is handed on to: the launcher, or those that train where it would not do it well."""
    if backend not in WORKERS or (backend == "torch" and not several_machines):
        return [launcher]
    name, role = WORKERS[backend]
    children = system.session_leaders(launcher)  # other children print logs
    return [pid for pid, said in children if name in said and role in (None, said[name])] or [launcher]


@contextmanager
def all_alive() -> Iterator[None]:
    """Say in words that another rank has gone; frameworks tell it by a RuntimeError of many kinds."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        lost = LostRankError(
            f"another process of this run has ended or does not answer ({first}); every checkpoint is from before this"
        )
        note_failure(lost)  # now: the launcher may be about to end this process as well
        raise lost from error


def note_failure(error: BaseException) -> None:
    """Leave word of why this process ends, where `run_launched` started it and as torchrun reads it."""
    rank = next((os.environ[name] for name in RANK_VARIABLES.values() if name in os.environ), "0")
    kind = next((k.__name__ for k in (LostRankError, ConfigError, RunError) if isinstance(error, k)), "")
    text = str(error) if kind else f"{type(error).__name__}: {error}"
    note = {"rank": int(rank), "kind": kind, "message": text, "timestamp": int(time.time())}
    _leave(note)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        _write(Path(file), note)


def on_several_machines() -> bool:
    """Whether this process is one of a run on several machines, each of whose launchers hears only its own signals."""
    return MACHINES in os.environ


def note_stopped(code: int) -> int:
    """Leave word that a run was asked to stop from outside, or on another machine, which its launcher has not heard of.

    Args:
        code: the command's exit code.

    Returns:
        The process's: launchers take any but 0 for a failure, and kill the processes that are still about to end.
    """
    rank = next((os.environ[name] for name in RANK_VARIABLES.values() if name in os.environ), None)
    if rank is None:
        return code
    _leave({"rank": int(rank), "kind": STOPPED, "code": code})
    return 0


def _leave(note: Mapping[str, object]) -> None:
    if folder := os.environ.get(NOTES):
        _write(Path(folder) / f"{time.time_ns()}-{note['rank']}.json", note)


def _write(file: Path, note: Mapping[str, object]) -> None:
    with suppress(OSError):  # the error itself matters more
        beside = file.with_suffix(".tmp")
        beside.write_text(json.dumps(note), encoding="utf-8")
        beside.replace(file)


def _read_notes(folder: Path) -> list[dict[str, object]]:
    files = sorted(folder.glob("*.json"), key=lambda f: int(f.name.partition("-")[0]))
    return [json.loads(f.read_text(encoding="utf-8")) for f in files]


def _knows_why(failures: Sequence[Mapping[str, object]]) -> bool:
    """Whether a process of this machine has failed by itself, and not for another that has gone."""
    return any(note["kind"] != LostRankError.__name__ for note in failures)


def _first_failure(notes: Sequence[Mapping[str, object]], ranks: range, *, stopped: bool) -> Exception | None:
    """What the first process to fail said of itself, or else the names of those that could say nothing."""
    for note in notes:
        if note["kind"] != LostRankError.__name__:
            error = ConfigError if note["kind"] == ConfigError.__name__ else RunError
            return error(f"process {note['rank']}: {note['message']}")
    if stopped:
        return None
    silent = sorted(set(ranks) - {int(str(note["rank"])) for note in notes})
    who = f"process {', '.join(map(str, silent))}" if notes and silent else "a process"
    return RunError(
        f"{who} ended without a word: killed, perhaps for want of memory; what "
        "the launcher says of it is above.  Every checkpoint is from before this"
    )


def leave(code: int) -> None:
    """End one of several processes on Paddle here and now, with all of it written.

    The destructors of its process group abort it (SIGABRT) now and then, where another process has gone before.
    """
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
