"""A disk that fills at each kind of write: the run stops and says so, what was written stays whole, and with room again
it goes on to the same end."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.io.names import RECORDS

from ..support import needs
from ..support.fork_server import ForkServer
from ..support.interrupted_runs import Case, assert_nothing_half_written, records, results, undisturbed

pytestmark = needs.backend

WRITES = {
    "configuration": r"open .*/\.config\.yaml",
    "list of class images": r"open .*/\.class_images\.json",
    "class image": r"open .*/class_images/\.00002",
    "latents": r"open .*/run$",
    "metrics": r"open .*/metrics\.jsonl",
    "held-out loss": r"open .*/validation\.jsonl",
    "log": r"open .*/log\.txt",
    "images before training": r"open .*/samples/\.step-000000",
    "images on the way": r"open .*/samples/\.step-000004",
    "records": r"open .*/\.dreambooth/\.manifest",
    "first checkpoint": r"mkdir .*/\.dreambooth/checkpoint-2",
    "later checkpoint": r"mkdir .*/\.dreambooth/checkpoint-4",
    "last checkpoint": r"mkdir .*/\.dreambooth/checkpoint-6",
    "finished model": r"/\.dreambooth/final",
    "report": r"open .*/run/\.report",
}
"""Kind of write -> what the first of its changes looks like, before which the disk fills."""
BACKENDS_OWN = ("first checkpoint", "finished model")
"""What a backend writes itself; the rest is core's, and is tried with PyTorch."""
LAST = ("finished model",)
"""Kinds of write after the last update: what follows room trains nothing."""


@pytest.fixture(scope="module")
def case(fork_server: ForkServer, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return undisturbed("lora", fork_server, tiny_model, tmp_path_factory.mktemp("full"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    needs.mount_disk(folder, mebibytes=24)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("write", WRITES if "torch" in installed_backends() else BACKENDS_OWN)
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(write: str, case: Case, disk: Path, tmp_path: Path) -> None:
    output, ballast, whole = disk / "run", disk / "ballast", case.folder / "whole"
    more = ["--cache_memory_gb=1e-9"] if write == "latents" else []
    leave = 8192 if write == "latents" else 0  # their file is made, and cannot be filled
    command = case.start(output, *more, fill=[WRITES[write], str(ballast), leave])
    code, said = command.wait(), case.log(output).read_text()
    case.log(output).unlink()
    assert ballast.exists(), f"nothing of the kind was written:\n{said}"
    assert code == 1, f"{code}: {said}"
    assert "Traceback" not in said, said
    assert "no space left" in said.partition("dreambooth: stopped: ")[2].lower(), said
    assert_nothing_half_written(output)

    ballast.unlink()
    code = case.start(output, *more).wait()
    said = case.log(output).read_text()
    case.log(output).unlink()
    assert code == 0, said
    assert ("updates/s" not in said) == (write in LAST), said
    assert records(output / "metrics.jsonl") == records(whole / "metrics.jsonl")
    assert results(output) == results(whole)


def test_a_checkpoint_waits_for_room(case: Case, disk: Path) -> None:
    output, ballast, whole = disk / "run", disk / "ballast", case.folder / "whole"
    command = case.start(output, fill=[WRITES["last checkpoint"], str(ballast), 0], room_seconds=60)
    while not (case.log(output).exists() and "make room within 60 seconds" in case.log(output).read_text()):
        assert not command.ended(), case.log(output).read_text()
        time.sleep(0.02)
    ballast.unlink()
    code, said = command.wait(), case.log(output).read_text()
    case.log(output).unlink()
    assert code == 0, said
    assert results(output) == results(whole)


def test_replacing_a_run_on_a_full_disk_keeps_it(case: Case, disk: Path) -> None:
    output, ballast, whole = disk / "run", disk / "ballast", case.folder / "whole"
    shutil.copytree(whole, output)
    before = results(output)
    again = [argument for argument in case.argv if "max_train_steps" not in argument]
    command = [*again, f"--output_dir={output}", "--overwrite_output_dir", "--max_train_steps=2"]
    for write in ("records", "first checkpoint", "finished model"):
        log = disk / "log"
        code = case.fork_server.start(command, log, fill=[WRITES[write], str(ballast), 0]).wait()
        said = log.read_text()
        assert (code, ballast.exists()) == (1, True), said
        assert "no space left" in said.partition("dreambooth: stopped: ")[2], said
        there = [results(f) for f in (output, *sorted((output / RECORDS).glob("replaced-*")))]
        classes = {name for name in before if name.startswith("class_images")}
        assert all(any(part.get(n) == raw for part in there) for n, raw in before.items() if n not in classes), write
        assert all(there[0].get(name) == before[name] for name in classes), "class images are still the right ones"
        ballast.unlink()
        log.unlink()
    assert case.fork_server.start(command, disk / "log").wait() == 0, (disk / "log").read_text()
    assert not list((output / RECORDS).glob("replaced-*"))
