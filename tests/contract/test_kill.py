"""Runs killed with SIGKILL at any moment and gone on with: what they write in the end is what one run alone writes.

Deaths come from outside, after any time or while a folder is being written, and from inside, just before a chosen
change of the file system, which goes through the moments that matter one by one.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.io.names import RECORDS
from dreamcore.runs.checkpoint import list_checkpoints

from ..support import needs
from ..support.fork_server import ForkServer
from ..support.interrupted_runs import (
    CLASS_IMAGES,
    KINDS,
    UPDATES,
    Case,
    assert_nothing_half_written,
    pictures,
    records,
    results,
    undisturbed,
)

pytestmark = [needs.backend, pytest.mark.timeout(900)]

DEATHS = 12 if "torch" in installed_backends() else 4
"""Deaths in each of the two kinds of run, at the least; what a death may leave is core's, and is tried with PyTorch."""


@pytest.fixture(scope="module", params=KINDS)
def case(
    request: pytest.FixtureRequest, fork_server: ForkServer, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    return undisturbed(request.param, fork_server, tiny_model, tmp_path_factory.mktemp("killed"))


def die(case: Case, output: Path, way: str, draw: random.Random) -> int:
    """Go on with a run and let it die in some way; returns its exit code, 0 where it was done before."""
    if way == "before a change":
        return case.start(output, die_at=draw.randint(1, case.changes)).wait()
    before, saved = pictures(output), max((n for n, _ in list_checkpoints(output)), default=0)
    saving = draw.choice([n for n in range(2, UPDATES + 1, 2) if n > saved] or [0])
    command = case.start(output)
    end = time.monotonic() + (draw.uniform(0, case.seconds) if way == "after a time" else 60)
    while time.monotonic() < end and not command.ended():
        if way == "while saving" and any(output.glob(f"{RECORDS}/checkpoint-{saving}/*")):
            break
        if way == "among class images" and pictures(output) > before:
            break
        time.sleep(0.002)
    command.kill()
    return command.wait()


def enough(deaths: dict[str, int]) -> bool:
    """Whether there were as many as there are to be, and some of each kind: a kill can come too late for its own."""
    return sum(deaths.values()) >= DEATHS and min(deaths.values()) >= max(1, DEATHS // 6)


def test_a_killed_run_goes_on_to_the_same_end(case: Case) -> None:
    draw = random.Random(4)
    whole = case.folder / "whole"
    deaths = dict.fromkeys(("after a time", "while saving", "among class images", "before a change"), 0)
    resumed = 0
    for chain in range(20):
        output, code = case.folder / f"chain-{chain}", -9
        while code == -9 and not enough(deaths):
            complete = pictures(output) == CLASS_IMAGES
            way = min((w for w in deaths if not (complete and w == "among class images")), key=lambda w: deaths[w])
            resumed += bool(list_checkpoints(output))
            code = die(case, output, way, draw)
            assert code in (0, -9), case.log(output).read_text()
            assert_nothing_half_written(output)
            deaths[way] += code == -9 and {
                "while saving": any(output.glob(f"{RECORDS}/checkpoint-*")),
                "among class images": 0 < pictures(output) < CLASS_IMAGES,
            }.get(way, True)
        if code == -9:
            resumed += bool(list_checkpoints(output))
            code = case.start(output).wait()
        assert code == 0, case.log(output).read_text()
        assert records(output / "metrics.jsonl") == records(whole / "metrics.jsonl")
        assert results(output) == results(whole)
        if enough(deaths):
            break
    assert enough(deaths), deaths
    assert resumed >= max(1, DEATHS // 6)
