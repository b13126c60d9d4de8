"""Runs killed with SIGKILL at any moment and gone on with: what they write in the end is what one run alone writes.

Deaths come from outside, after any time or while a folder is being written, and from inside, just before a chosen
change of the file system, which goes through the moments that matter one by one.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import needs
from ..tiny import draw_photos
from .nursery import Command, Nursery

pytestmark = [needs.torch, pytest.mark.timeout(900)]

UPDATES = 6
CLASS_IMAGES = 6
DEATHS = 12
"""Deaths in each of the two kinds of run, at the least."""
KINDS = {
    "full": ["--train_text_encoder", "--checkpoints_total_limit=1"],
    "lora": ["--use_lora", "--lora_dropout=0.1", "--use_ema", "--random_flip"],
}


@dataclass
class Case:
    """One kind of run, and what it writes when nothing disturbs it."""

    argv: list[str]
    nursery: Nursery
    folder: Path
    seconds: float = 0.0
    changes: int = 0

    def start(self, output: Path, die_at: int | None = None) -> Command:
        log = output.with_suffix(".log")
        argv = [*self.argv, f"--output_dir={output}", "--resume_from_checkpoint=latest"]
        return self.nursery.start(argv, log, die_at)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module", params=KINDS)
def case(
    request: pytest.FixtureRequest, nursery: Nursery, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    folder = tmp_path_factory.mktemp("killed")
    draw_photos(folder / "photos", count=3)
    draw_photos(folder / "held_out", count=1, seed=9)
    settings = {
        "pretrained_model_name_or_path": tiny_model,
        "instance_data_dir": folder / "photos",
        "instance_prompt": "a photo of sks dog",
        "class_prompt": "a photo of dog",
        "num_class_images": CLASS_IMAGES,
        "prior_num_inference_steps": 2,
        "sample_batch_size": 2,
        "train_batch_size": 1,
        "learning_rate": 1e-3,
        "max_train_steps": UPDATES,
        "checkpointing_steps": 2,
        "logging_steps": 3,
        "validation_data_dir": folder / "held_out",
        "validation_prompt": "a sks dog in snow",
        "validation_steps": 2,
        "validation_num_inference_steps": 2,
        "num_validation_images": 1,
        "report_to": "none",
        "device": "cpu",
    }
    argv = ["train", "--with_prior_preservation", *(f"--{k}={v}" for k, v in settings.items()), *KINDS[request.param]]
    case = Case(argv, nursery, folder)
    started = time.monotonic()
    command = case.start(folder / "whole")
    assert command.wait() == 0, (folder / "whole.log").read_text()
    case.seconds = time.monotonic() - started
    case.changes = int((folder / "whole.log").read_text().rsplit(": ", 1)[1])
    return case


def records(file: Path) -> list[dict[str, Any]]:
    """A file of JSON lines, without times."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def results(output: Path) -> dict[str, bytes]:
    """Every file of a finished run but those that tell of times, of folders and of how often it was begun anew."""
    told = ("log.txt", "metrics.jsonl", "config.yaml", "state.json", "report.html", "report.png", "report_data.json")
    files = {str(f.relative_to(output)): f for f in output.rglob("*") if f.is_file() and f.name not in told}
    return {name: content(f) for name, f in files.items() if not re.search(r"(^|/)\.", name)}


def content(file: Path) -> Any:
    """A file's bytes; of safetensors, whose metadata have no order, the header apart."""
    raw = file.read_bytes()
    if file.suffix != ".safetensors":
        return raw
    start = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:start]), raw[start:]


def assert_nothing_half_written(output: Path) -> None:
    """What a killed run leaves is whole wherever it bears a name that counts."""
    from dreamcore.checkpoint import list_checkpoints, verify

    for _, folder in list_checkpoints(output):
        verify(folder)
    for image in output.glob("class_images/*.png"):
        assert image.read_bytes().endswith(b"IEND\xaeB`\x82"), image
    if (output / "model_index.json").exists():
        index = json.loads((output / "model_index.json").read_text())
        assert all((output / name).is_dir() for name, value in index.items() if isinstance(value, list) and value[0])


def pictures(output: Path) -> int:
    return len(list(output.glob("class_images/*.png")))


def die(case: Case, output: Path, way: str, draw: random.Random) -> int:
    """Go on with a run and let it die in some way; returns its exit code, 0 where it was done before."""
    if way == "before a change":
        return case.start(output, die_at=draw.randint(1, case.changes)).wait()
    before = pictures(output)
    command = case.start(output)
    end = time.monotonic() + (draw.uniform(0, case.seconds) if way == "after a time" else 60)
    while time.monotonic() < end and not command.ended():
        if way == "while saving" and any(output.glob(".checkpoint-*.tmp/*")):
            break
        if way == "among class images" and pictures(output) > before:
            break
        time.sleep(0.002)
    command.kill()
    return command.wait()


def test_a_killed_run_goes_on_to_the_same_end(case: Case) -> None:
    draw = random.Random(4)
    whole = case.folder / "whole"
    deaths = dict.fromkeys(("after a time", "while saving", "among class images", "before a change"), 0)
    for chain in range(20):
        output, code = case.folder / f"chain-{chain}", -9
        while code == -9 and sum(deaths.values()) < DEATHS:
            complete = pictures(output) == CLASS_IMAGES
            way = min((w for w in deaths if not (complete and w == "among class images")), key=lambda w: deaths[w])
            code = die(case, output, way, draw)
            assert code in (0, -9), output.with_suffix(".log").read_text()
            assert_nothing_half_written(output)
            deaths[way] += code == -9 and {
                "while saving": any(output.glob(".checkpoint-*.tmp")),
                "among class images": 0 < pictures(output) < CLASS_IMAGES,
            }.get(way, True)
        if code == -9:
            code = case.start(output).wait()
        assert code == 0, output.with_suffix(".log").read_text()
        assert records(output / "metrics.jsonl") == records(whole / "metrics.jsonl")
        assert results(output) == results(whole)
        if sum(deaths.values()) >= DEATHS:
            break
    assert min(deaths.values()) >= 2, deaths
