"""Checkpoints that a thread writes: the numbers of their update, whole or absent, whatever becomes of the thread."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import RunError
from dreamcore.formats import tensors
from dreamcore.formats.later import Later
from dreamcore.formats.tensors import Entry, write_tensors
from dreamcore.formats.weights import read_safetensors
from dreamcore.io.names import RECORDS
from dreamcore.runs import checkpoint
from dreamcore.training.saving import Saving

WEIGHTS = np.arange(12, dtype=np.float32)


def write(folder: Path) -> None:
    """What a backend writes: a component, and a state of two sizes."""
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text("{}")
    write_tensors(folder / "unet" / "model.safetensors", {"w": Entry.of(WEIGHTS)}, {"who": "me"})
    write_tensors(folder / "optimizer.safetensors", {"m": Entry.of(WEIGHTS * 2), "s": Entry.of(WEIGHTS[:1] * 3)})


def begin(folder: Path, update: int = 2, **more: Any) -> Callable[[Callable[[str], None]], Path]:
    return checkpoint.begin(folder, update, write, {"who": "me"}, Later(2**20), **more)


def test_it_holds_the_numbers_of_its_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = WEIGHTS.copy()
    monkeypatch.setitem(globals(), "WEIGHTS", now)
    recorded: list[str] = []
    finish = begin(tmp_path / "aside", record=recorded.extend)
    checkpoint.save(tmp_path / "at once", 2, write, {"who": "me"}, None)
    now += 1  # training has gone on
    assert not (tmp_path / "aside" / "checkpoint-2").exists()
    thread = threading.Thread(target=lambda: finish(print))
    thread.start()
    thread.join()
    one, other = (tmp_path / name / "checkpoint-2" for name in ("aside", "at once"))
    files = sorted(str(f.relative_to(other)) for f in other.rglob("*") if f.is_file())
    assert sorted(recorded) == [f"checkpoint-2/{name}" for name in files]
    assert {name: (one / name).read_bytes() for name in files} == {name: (other / name).read_bytes() for name in files}
    assert checkpoint.verify(one)["update"] == 2, "the hashes that were taken on the way are those of the files"
    np.testing.assert_array_equal(read_safetensors(one / "unet" / "model.safetensors")["w"], np.arange(12))


def test_what_there_is_no_room_for_is_written_at_once(tmp_path: Path) -> None:
    later = Later(WEIGHTS.nbytes)
    finish = checkpoint.begin(tmp_path, 2, write, {}, later)
    assert [file.name for file in later.files] == ["model.safetensors"]
    assert (tmp_path / RECORDS / "checkpoint-2" / "optimizer.safetensors").is_file()
    checkpoint.verify(finish(print))


def full(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """Let the disk be full whenever an optimizer's state is written, so many times."""
    real, failed = tensors._write, []

    def fails(file: Path, *rest: Any) -> None:
        if file.name == "optimizer.safetensors" and len(failed) < times:
            failed.append(file)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, *rest)

    monkeypatch.setattr(tensors, "_write", fails)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, write, {}, None)
    full(monkeypatch, times=1e9)
    saving = Saving(print)
    saving.begin(begin(tmp_path), lambda folder: pytest.fail("it is not whole"))
    with pytest.raises(
        RunError, match=r"writing .*checkpoint-2: no space left on the disk\. Everything written before"
    ):
        saving.wait()
    saving.close()
    assert [update for update, _ in checkpoint.list_checkpoints(tmp_path)] == [1]
    assert not any((tmp_path / RECORDS).iterdir())
    checkpoint.verify(tmp_path / "checkpoint-1")


def test_room_lets_it_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH_ROOM_SECONDS", "30")
    full(monkeypatch, times=1)
    said, here = list[tuple[str, int]](), threading.get_ident()
    saving = Saving(lambda text: said.append((text, threading.get_ident())))
    done: list[Path] = []
    saving.begin(begin(tmp_path), done.append)
    saving.wait()
    saving.close()
    assert [thread for _, thread in said] == [here], "by the thread that trains"
    assert "no space left on the disk; make room within 30 seconds and the run goes on" in said[0][0]
    checkpoint.verify(done[0])


def test_killed_while_it_is_written_it_is_absent(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, write, {}, None)
    child = os.fork()
    if child == 0:  # pragma: no cover
        real = tensors._bytes_of
        tensors._bytes_of = lambda *given: time.sleep(30) or real(*given)  # type: ignore[assignment, func-returns-value]
        saving = Saving(print)
        saving.begin(begin(tmp_path), print)
        saving.wait()
        os._exit(0)
    end = time.monotonic() + 20
    half = tmp_path / RECORDS / "checkpoint-2" / "unet"
    while not list(half.glob(".*.tmp")) and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert list(half.glob(".*.tmp")), "it was about to be written"
    assert [update for update, _ in checkpoint.list_checkpoints(tmp_path)] == [1]
    checkpoint.verify(tmp_path / "checkpoint-1")


def test_the_thread_that_trains_is_told_once() -> None:
    gate, told = threading.Event(), list[tuple[Path, int]]()
    saving = Saving(print)
    saving.begin(
        lambda say: Path("a") if gate.wait(20) else Path("late"), lambda f: told.append((f, threading.get_ident()))
    )
    saving.poll()
    assert told == [], "it is not done"
    gate.set()
    saving.wait()
    saving.poll()
    assert told == [(Path("a"), threading.get_ident())]
    saving.close()
