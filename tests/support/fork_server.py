"""Starts `dreambooth` commands quickly: one process imports the framework, and each command is a fork of it.

A line of JSON on standard input starts a command; a line with its process id comes back, and after any line in answer,
which says that the process is held, one with how it ended.
A job's keys are `argv`, `log`, and the trouble that it makes itself: with `die_at` k the command kills itself (SIGKILL)
just before its k-th change of the file system; with `fill` [PATTERN, FILE, LEAVE] it writes FILE until its disk has
LEAVE bytes, before it first changes a path, where PATTERN matches EVENT PATH (of Python's audit events); with
`room_seconds` it waits so long for room.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from dreamcore.backends.installed import installed_backends

from .paths import ROOT

COMMANDS = ("dreamcore.training.loop", "dreamcore.cli.flags", "dreamcore.cli.main")
LARGEST_DISK = 1 << 30
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


def changes_files(event: str, args: tuple[Any, ...]) -> bool:
    """Whether an audit event is a change of the file system; opening for writing is one."""
    if event == "open":
        return isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR)) and args[0] != "/dev/null"
    return event in CHANGES


def fill_disk(ballast: str, leave: int) -> None:
    """Write a file until its disk has no more than `leave` bytes; a disk that was not made for it is left alone."""
    assert shutil.disk_usage(Path(ballast).parent).total < LARGEST_DISK, f"{ballast} is on a real disk"
    with open(ballast, "wb", buffering=0) as file:  # noqa: PTH123
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - leave))


def run_command(job: dict[str, Any]) -> None:
    """What the forked process does."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seen = 0
    pattern, ballast, leave = job.get("fill", (None, "", 0))

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen, pattern
        if not changes_files(event, args):
            return
        seen += 1
        if seen == job.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if pattern and re.search(pattern, f"{event} {args[0]}"):
            pattern = None
            fill_disk(ballast, leave)

    if "fill" not in job:
        os.fsync = lambda file: None  # as in conftest.py; a full disk may be told of by it alone
    if "room_seconds" in job:
        os.environ["DREAMBOOTH_ROOM_SECONDS"] = str(job["room_seconds"])
    sys.dont_write_bytecode = True  # of what is imported late, the first time only: it is none of the changes to count
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


def main(*, stub: bool) -> None:
    if stub:
        import_module("tests.support.stub_backend").install()
        modules = (
            "dreamcore.training.loop",
            "dreamcore.commands.generate",
            "dreamcore.commands.merge",
            "dreamcore.cli.convert",
            "dreamcore.cli.flags",
            "dreamcore.cli.main",
        )
        for module in modules:
            import_module(module)
    else:
        import_framework(installed_backends()[0])
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run_command(job)
        print(pid, flush=True)
        sys.stdin.readline()  # the tests hold the process; until it is waited for, its id is its own, dead or alive
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def import_framework(name: str) -> None:
    """Once for all commands."""
    for module in (
        "dreamcore.training.loop",
        f"dreamcore.adapters.{name}.backend",
        "dreamcore.cli.flags",
        "dreamcore.cli.main",
    ):
        import_module(module)
    if name == "torch":  # what it imports at the first use only
        import torch
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

        assert all((AutoencoderKL, DDIMScheduler, UNet2DConditionModel))
        torch.set_num_threads(1)
    if name == "mindspore":
        import_module("dreamcore.adapters.mindspore.cpu_shim").install()  # mindone comes after it
        mindone = import_module("dreamcore.adapters.mindspore.models").mindone  # which prints while it is imported
        assert mindone("transformers").CLIPTextModel and mindone("diffusers").StableDiffusionPipeline
        import_module("dreamcore.adapters.mindspore.sampling")


@dataclass
class Command:
    """A started command."""

    process: int
    """A file descriptor: unlike a process id, it never comes to mean another process."""
    fork_server: ForkServer
    code: int | None = None

    def kill(self) -> None:
        """SIGKILL; the process may have ended already."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)

    def ended(self) -> bool:
        """Whether it has ended, by itself or not."""
        return bool(select.select([self.process], [], [], 0)[0])

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        if self.code is None:
            self.code = int(self.fork_server.read())
            os.close(self.process)
        return self.code


class ForkServer:
    """The importing process, as the tests see it.

    Args:
        stub: its commands run on `tests.support.stub_backend`, and no framework is imported.
    """

    def __init__(self, *, stub: bool = False) -> None:
        self._main = f"from tests.support.fork_server import main; main(stub={stub})"

    def __enter__(self) -> Self:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._main],
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

    def start(self, argv: list[str], log: Path, **trouble: Any) -> Command:
        """Start a command; its output is appended to `log`."""
        self._write(json.dumps({"argv": argv, "log": str(log), **trouble}))
        command = Command(os.pidfd_open(int(self.read())), self)
        self._write("held")
        return command

    def _write(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the process that imports has ended"
        return line
