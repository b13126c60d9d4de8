"""Starts `dreambooth` commands quickly: one process imports the framework, and each command is a fork of it.

Run as `python -m tests.torch.nursery`.  A line of JSON {"argv", "log", "die_at"} on standard input starts a command;
a line with its process id, then one with how it ended, comes back.  With `die_at` k the command kills itself (SIGKILL)
just before its k-th change of the file system; without, it is for others to kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


def changes_files(event: str, args: tuple[Any, ...]) -> bool:
    """Whether an audit event is a change of the file system; opening for writing is one."""
    if event == "open":
        return isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR)) and args[0] != "/dev/null"
    return event in CHANGES


def run_command(job: dict[str, Any]) -> None:
    """What the forked process does."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seen = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if changes_files(event, args):
            seen += 1
            if seen == job["die_at"]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    from dreamcore.cli.main import main

    code = 1
    try:
        code = main(job["argv"])
    except BaseException:
        import traceback

        traceback.print_exc()
    print(f"changes of the file system: {seen}", flush=True)
    os._exit(code)


def main() -> None:
    import diffusers
    import peft
    import torch
    import transformers
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    assert all((diffusers, peft, transformers, AutoencoderKL, DDIMScheduler, UNet2DConditionModel))
    torch.set_num_threads(1)
    from dreamcore.adapters.torch import backend

    assert backend
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run_command(job)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


@dataclass
class Command:
    """A started command."""

    process: int
    """A file descriptor: unlike a process id, it never comes to mean another process."""
    nursery: Nursery
    code: int | None = None

    def kill(self) -> None:
        """SIGKILL; the process may have ended already."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        if self.code is None:
            self.code = int(self.nursery.read())
            os.close(self.process)
        return self.code


class Nursery:
    """The importing process, as the tests see it."""

    def __enter__(self) -> Self:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import conftest; from tests.torch.nursery import main; main()"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)

    def start(self, argv: list[str], log: Path, die_at: int | None = None) -> Command:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"argv": argv, "log": str(log), "die_at": die_at}) + "\n")
        self.process.stdin.flush()
        return Command(os.pidfd_open(int(self.read())), self)

    def read(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the process that imports has ended"
        return line
