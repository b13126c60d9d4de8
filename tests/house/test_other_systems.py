"""macOS and Windows, imitated: what they lack is taken away, and the package imports, trains and keeps its promises."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dreamcore.io import system

from ..support import needs
from ..support.paths import ROOT
from ..support.runs import SMALL

TAKE_AWAY = """
import builtins, errno, io, os, signal, sys

sys.modules["fcntl"] = None
for module, names in ((os, ("posix_fallocate", "getsid", "sched_getaffinity", "sched_setaffinity")),
                      (signal, ("SIGHUP", "pidfd_send_signal"))):
    for name in names:
        delattr(module, name)

def without_proc(really):
    def opened(file, *rest, **more):
        if isinstance(file, (str, os.PathLike)) and os.fspath(file).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(file))
        return really(file, *rest, **more)
    return opened

def no_folders(file, *rest, really=os.open, **more):
    if isinstance(file, (str, os.PathLike)) and os.path.isdir(file):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(file))
    return really(file, *rest, **more)

import shutil
shutil._use_fd_functions = False  # as where it opens no folders
builtins.open = io.open = without_proc(open)
os.open = without_proc(no_folders)
"""
TRAIN = """
import sys
import dreamcore
from dreamcore.cli import main
from dreamcore.io import system
import dreamcore.backends.launching, dreamcore.backends.installation
assert system.peak_of_process() is None
assert len(system.STOPPING) == 2
model, photos, output, settings = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4])
for more in ({}, {"max_train_steps": 3, "resume_from_checkpoint": "latest"}):
    folders = {"pretrained_model_name_or_path": model, "instance_data_dir": photos, "output_dir": output}
    print("trained", dreamcore.train(**folders, **(settings | more)).updates)
"""


@needs.backend
def test_it_trains_without_what_linux_alone_has(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """Latents on the disk, class images, checkpoints and all; then it goes on from one of them."""
    settings = {
        **SMALL, "max_train_steps": 2, "checkpointing_steps": 1, "cache_memory_gb": 1e-9,
        "with_prior_preservation": True, "class_prompt": "a dog", "num_class_images": 1, "prior_num_inference_steps": 1,
    }  # fmt: skip
    words = [str(tiny_model), str(photos), str(tmp_path / "run"), repr(settings)]
    first = "import mindspore" if find_spec("mindspore") else ""  # it is Linux's own, and asks for all of it
    command = [sys.executable, "-W", "ignore", "-c", first + TAKE_AWAY + TRAIN, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith("trained")]
    assert said == ["trained 2", "trained 3"], done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_only_io_knows_the_system() -> None:
    """Names that one system has and another has not stand in dreamcore/io."""
    calls = r"fcntl|msvcrt|posix_\w+|sched_\w+|getsid|setsid|killpg|getuid|statvfs|sysconf|SIGHUP|SIGKILL|pidfd\w*"
    names = rf"\b({calls})\b|/proc"
    files = [f for top in ("dreamcore", "adapters", "cli") for f in (ROOT / top).rglob("*.py") if f.parent.name != "io"]
    assert len(files) > 100
    found = [f"{f.relative_to(ROOT)}: {m[0]}" for f in files if (m := re.search(names, f.read_text(encoding="utf-8")))]
    assert found == []


def test_room_is_taken_where_the_system_has_no_call_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    with (tmp_path / "room").open("w+b") as file:
        system.reserve(file, (5 << 20) + 3)
        stat = os.fstat(file.fileno())
    assert stat.st_size == (5 << 20) + 3
    assert stat.st_blocks * 512 >= stat.st_size, "no hole"


def test_a_full_disk_is_told_where_the_system_has_no_call_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(OSError) as raised:
        system.reserve(file, 10)
    assert raised.value.errno == errno.ENOSPC


def test_workers_are_found_by_their_environment(tmp_path: Path) -> None:
    """A launcher's children of sessions of their own, with what they have been told."""
    program = """
import subprocess, sys
for own, role in ((True, "one"), (True, "two"), (False, "logs")):
    subprocess.Popen([sys.executable, "-c", "input()"], start_new_session=own, env={"ROLE": role})
print("started", flush=True)
input()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    roles = sorted(said.get("ROLE", "") for _, said in system.session_leaders(parent.pid))
    parent.communicate("\n" * 4)
    assert roles == ["one", "two"]
    assert system.session_leaders(parent.pid) == [], "it has gone"


def test_a_signal_to_a_process_that_has_gone_is_no_error() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    system.hand_on(system.STOPPING[0], gone.pid)
