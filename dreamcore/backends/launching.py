"""One run on several devices: each backend's own launcher is started, and its processes' failures are gathered.

The launchers know how to start and end processes, over one machine; nothing of that is repeated here.  What they do
not do is say last what went wrong: whoever fails first leaves a note, and the note is the last thing said.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, LostRankError, RunError
from ..io import system
from .installed import RANK_VARIABLES

NOTES = "DREAMBOOTH_FAILURES"
"""Environment variable: the folder that processes of a launched run leave their failures in."""
STOPPED = "stopped"
"""Kind of a note that tells no failure."""
GRACE_SECONDS = 120
"""After one process has failed, or the run was told to stop, the others have so long to save and end."""


@dataclass(frozen=True)
class Launch:
    """A launcher's command line, and what it adds to the environment."""

    command: list[str]
    environment: dict[str, str]

    def __str__(self) -> str:
        import shlex

        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.environment.items()), shlex.join(self.command)])


def _torchrun(processes: int, devices: Sequence[str], logs: Path) -> Launch:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
    return Launch([*command, f"--shutdown-timeout={GRACE_SECONDS}"], visible)


def _paddle_launch(processes: int, devices: Sequence[str], logs: Path) -> Launch:
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--log_dir={logs}", "--log_level=WARNING"]
    # no --backend: gloo would keep Paddle on the CPU, and any makes the launcher an older one
    return Launch([*command, f"--devices={','.join(devices)}" if devices else f"--nproc_per_node={processes}"], {})


def _msrun(processes: int, devices: Sequence[str], logs: Path) -> Launch:
    folder = Path(sys.executable).parent
    count = [f"--worker_num={processes}", f"--local_worker_num={processes}", f"--master_port={_free_port()}"]
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}  # msrun starts whatever python is first
    if devices:
        environment["ASCEND_RT_VISIBLE_DEVICES"] = ",".join(devices)
    return Launch([str(folder / "msrun"), *count, f"--log_dir={logs}", "--join=True"], environment)


LAUNCHERS: dict[str, Callable[[int, Sequence[str], Path], Launch]] = {
    "torch": _torchrun,
    "paddle": _paddle_launch,
    "mindspore": _msrun,
}
"""Backend -> its launcher's command for so many processes on these devices, keeping its logs in a folder; the script
and its arguments follow."""


def launch_command(
    backend: str, arguments: Sequence[str], *, devices: Sequence[str] = (), processes: int | None = None, logs: Path
) -> Launch:
    """The command that runs `dreambooth ARGUMENTS` once a device.

    Args:
        devices: numbers of the machine's accelerators; none for the CPU, or for the first `processes` of them.
        processes: how many, where it is not the number of `devices`.
        logs: folder for what the launcher itself writes: its logs can hold the whole environment.

    Raises:
        ConfigError: neither devices nor a number, or both and they differ; a backend without a launcher.
    """
    if processes is None and not devices:
        raise ConfigError("launch: say on which devices (--devices 0,1) or in how many processes (--num_processes 2)")
    if wrong := [d for d in devices if not d.isdecimal()]:
        raise ConfigError(f"devices: {wrong[0]!r} is no device number; expected numbers with commas, 0,1")
    if len(set(devices)) < len(devices):
        raise ConfigError(f"devices: {','.join(devices)} names a device twice; one process runs on each")
    if devices and processes not in (None, len(devices)):
        raise ConfigError(f"num_processes: {processes} for {len(devices)} devices; leave it out, or name as many")
    if (count := processes or len(devices)) < 1:
        raise ConfigError(f"num_processes: {count}; expected at least 1")
    if backend not in LAUNCHERS:
        raise ConfigError(f"launch: the launcher of backend {backend!r} is not known; start its own launcher instead")
    start = LAUNCHERS[backend](count, devices, logs)
    return Launch([*start.command, str(_script()), *arguments], start.environment)


def run_launched(
    backend: str, arguments: Sequence[str], *, devices: Sequence[str] = (), processes: int | None = None
) -> int:
    """Run `dreambooth ARGUMENTS` on several devices, to the end of every process; returns the exit code.

    Signals are handed on to the launcher, which hands them on to all.

    Raises:
        ConfigError, RunError: what the process that failed first said, whichever it was.
    """
    with tempfile.TemporaryDirectory(prefix="dreambooth-launch-") as folder:
        notes, logs = Path(folder) / "failures", Path(folder) / "logs"
        notes.mkdir()
        launch = launch_command(backend, arguments, devices=devices, processes=processes, logs=logs)
        environment = os.environ | launch.environment | {NOTES: str(notes)}
        process = subprocess.Popen(launch.command, env=environment, start_new_session=True)
        received: list[int] = []

        def hand_on(number: int, frame: object) -> None:
            received.append(number)
            for told in _signal_targets(process.pid, backend):
                system.hand_on(number, told)

        before = {number: signal.signal(number, hand_on) for number in system.STOPPING}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        left = _read_notes(notes)
        failures = [note for note in left if note["kind"] != STOPPED]
        if code and (error := _first_failure(failures, processes or len(devices), stopped=bool(received))):
            raise error
        asked = next((int(str(note["code"])) for note in left if note["kind"] == STOPPED), 0)
    return 128 + received[0] if code and received else code or asked


WORKERS = {"mindspore": ("MS_ROLE", "MS_WORKER"), "paddle": ("PADDLE_TRAINER_ID", None)}
"""Backend whose launcher does not hand signals on as they are -> a variable that its workers have, and its value.

msrun answers SIGTERM by ending alone, and SIGINT by killing its workers; paddle.distributed.launch sends SIGTERM twice.
"""


def _signal_targets(launcher: int, backend: str) -> list[int]:
    """The processes that a signal is handed on to: the launcher, or those that train where it would not do it well."""
    if backend not in WORKERS:
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


def note_stopped(code: int) -> int:
    """Leave word that a run was asked to stop from outside, which its launcher has not heard of.

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


def _first_failure(notes: Sequence[Mapping[str, object]], processes: int, *, stopped: bool) -> Exception | None:
    """What the first process to fail said of itself, or else the names of those that could say nothing."""
    for note in notes:
        if note["kind"] != LostRankError.__name__:
            error = ConfigError if note["kind"] == ConfigError.__name__ else RunError
            return error(f"process {note['rank']}: {note['message']}")
    if stopped:
        return None
    silent = sorted(set(range(processes)) - {int(str(note["rank"])) for note in notes})
    who = f"process {', '.join(map(str, silent))}" if notes and silent else "a process"
    return RunError(
        f"{who} ended without a word: killed, perhaps for want of memory; what "
        "the launcher says of it is above.  Every checkpoint is from before this"
    )


def _script() -> Path:
    """The installed console script, which every launcher can run as `python SCRIPT`."""
    for script in (Path(sys.argv[0]), Path(sys.executable).with_name("dreambooth")):
        if script.name == "dreambooth" and script.is_file():
            return script.absolute()
    if sys.platform == "win32":  # its console scripts are programs
        return Path(__file__).parent / "cli" / "__main__.py"
    raise ConfigError(f"launch: {Path(sys.executable).with_name('dreambooth')}: not there; install the package first")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def leave(code: int) -> None:
    """End one of several processes on Paddle here and now, with all of it written.

    The destructors of its process group abort it (SIGABRT) now and then, where another process has gone before.
    """
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
