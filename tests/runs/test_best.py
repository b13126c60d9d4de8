"""The best checkpoint: which it is, that it stays, what a resumption and a death leave of it, and when it is enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.errors import ConfigError
from dreamcore.evaluation.embedded import EmbeddedJudge
from dreamcore.io.names import RECORDS
from dreamcore.runs import best
from dreamcore.runs.best import Best
from dreamcore.runs.checkpoint import list_checkpoints, verify
from dreamcore.tinyworld import judge
from dreamcore.tinyworld.subjects import SUBJECTS

from ..support import stub_backend
from ..support.fork_server import ForkServer
from ..support.paths import ROOT
from ..support.stub_runs import train
from .test_replacing import results

LOSSES = (5.0, 4.0, 3.0, 2.0, 3.5, 2.0, 2.5, 1.0)
"""Lowest after update 3 until the last one; as low again after 5, which is too late."""
HELD_OUT: dict[str, Any] = {
    "validation_share": 0.4,
    "validation_prompt": None,
    "num_validation_images": None,
    "validation_steps": 1,
    "checkpoints_total_limit": 1,
    "best_by": "validation_loss",
}
WHY = "the loss on held-out photographs is lowest there: 2, 5 before training"


@pytest.fixture(autouse=True)
def losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stub_backend.LOSSES, ",".join(map(str, LOSSES)))


def weights(folder: Path) -> int:
    """After how many updates they were written."""
    return int(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")["weight"][0])


def test_it_stays_beside_the_last_ones(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    run = train(stub_model, drawn, tmp_path / "out", **HELD_OUT, max_train_steps=6, checkpointing_steps=2)
    assert [n for n, _ in list_checkpoints(run.folder)] == [6], "the limit holds for the others"
    assert best.read(run.folder) == Best(3, "validation_loss", 2.0, 5.0), (
        "3 lies between checkpoints, and 5 is no better"
    )
    folder = run.folder / "checkpoint-best"
    assert verify(folder)["update"] == 3 == weights(folder)
    assert run.status.best == 3 and run.status.measured == {"validation_loss": 2.5}
    page = (run.folder / "report.html").read_text()
    assert WHY in page
    assert run.next_steps.files[1] == (
        folder,
        f"the checkpoint of update 3, kept because {WHY}",
    )
    more = train(
        stub_model, drawn, tmp_path / "more", **HELD_OUT, resume_from_checkpoint=str(folder), max_train_steps=4
    )
    assert (more.updates, weights(more.folder)) == (4, 4), "it is a checkpoint to go on from"


def test_a_checkpoint_of_that_update_gives_it_its_files(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    given = HELD_OUT | {"checkpoints_total_limit": None}
    run = train(stub_model, drawn, tmp_path / "out", **given, max_train_steps=4, checkpointing_steps=1)
    ours, others = ({f.relative_to(d): f for f in d.rglob("*.safetensors")} for d in (
        run.folder / "checkpoint-best", run.folder / "checkpoint-3",
    ))  # fmt: skip
    assert ours.keys() == others.keys() and all(file.samefile(others[name]) for name, file in ours.items())


def test_it_ends_when_nothing_better_comes(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    given = HELD_OUT | {"best_by": None, "stop_when": "no_better_for=2", "max_train_steps": 9}
    run = train(stub_model, drawn, tmp_path / "out", **given)
    assert (run.updates, run.exit_code, run.state, run.status.reason) == (
        5,
        0,
        "finished",
        "no better for 2 measurements",
    )
    assert weights(run.folder) == 5, "the finished model is the last update's"
    assert weights(run.folder / "checkpoint-best") == 3
    assert list(run.checkpoints) == [5], "to go on from"
    again = train(stub_model, drawn, run.folder, **given, resume_from_checkpoint="latest")
    assert again.updates == 5, "it is finished"
    more = train(stub_model, drawn, run.folder, **given | {"max_train_steps": 11}, resume_from_checkpoint="latest")
    assert more.updates == 6, "more is asked for, and the next measurement is no better either"
    free = given | {"max_train_steps": 7, "stop_when": None, "best_by": "validation_loss"}
    free = train(stub_model, drawn, run.folder, **free, resume_from_checkpoint="latest")
    assert (free.updates, best.read(run.folder)) == (7, Best(7, "validation_loss", 1.0, 5.0)), "its memory goes on"


def test_another_measure_begins_anew(
    stub_model: Path, drawn: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(stub_model, drawn, tmp_path / "out", **HELD_OUT, max_train_steps=3)
    given = HELD_OUT | {
        "best_by": "subject",
        "evaluate_steps": 1,
        "judge": ["tinyworld"],
        "validation_prompt": "a ball",
    }
    train(stub_model, drawn, run.folder, **given, resume_from_checkpoint="latest", max_train_steps=4)
    found = best.read(run.folder)
    assert (
        found
        and (found.update, found.by) == (3, "subject")
        and "was chosen by validation_loss" in capfd.readouterr().err
    )


def test_scores_are_the_judges(stub_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After update 2 the model draws the subject; before and after it, another."""
    subject, other, *_ = SUBJECTS.values()
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, photo in enumerate(subject.pictures()):
        photo.save(photos / f"{number}.png")

    def sample(self: stub_backend.StubBackend, request: Any) -> Any:
        drawn = (subject if self.updates == 2 else other).pictures()
        return np.stack([np.asarray(drawn[seed % len(drawn)]) for seed in request.seeds])

    real, read = EmbeddedJudge.follows, set[str]()

    def follows(self: EmbeddedJudge, pictures: Any, prompts: Any) -> Any:
        read.update(prompts)
        return real(self, pictures, prompts)

    monkeypatch.setattr(stub_backend.StubBackend, "sample", sample)
    monkeypatch.setattr(EmbeddedJudge, "follows", follows)
    given = {"evaluate_steps": 1, "validation_steps": 3, "judge": ["tinyworld"], "best_by": "subject"}
    prompt = f"a photo of sks {subject.kind}"
    run = train(stub_model, photos, tmp_path / "out", **given, max_train_steps=4, validation_prompt=prompt)
    references = np.stack([np.asarray(picture) for picture in subject.pictures()])
    for record in run.validation:
        made = np.stack([np.asarray(picture) for picture in run.pictures(record["step"])])
        likeness = judge.subject_scores(references, made)
        assert record["likeness"] == pytest.approx(likeness.mean(), abs=1e-6)
        assert record["shown"] == (likeness >= judge.threshold()).mean()
        assert record["thing"] == np.mean([kind == subject.kind for kind in judge.look(made).kind])
    assert read == {f"a photo of {subject.kind}"}, "the rare word says nothing to a judge"
    assert list(run.validation["step"]) == [0, 1, 2, 3, 4], "images are made where they are to be scored"
    assert best.read(run.folder) and best.read(run.folder).update == 2  # type: ignore[union-attr]
    both = train(stub_model, photos, tmp_path / "both", **given | {"best_by": None}, validation_prompt=prompt)
    found, at = best.read(both.folder), {record["step"]: record for record in both.validation}
    assert found is not None and found.by == "both"
    assert found.value == pytest.approx((max(at[2]["likeness"], 0) * at[2]["thing"]) ** 0.5)
    assert both.status.measured == {n: v for n, v in at[4].items() if n != "step"}
    page = (both.folder / "report.html").read_text()
    assert "Scores of the validation images" in page and "tinyworld&#x27;s judge" in page


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"evaluate_steps": 1, "judge": ["nowhere/at-all"], "validation_prompt": "a mug"}, "judge: "),
        (
            {"evaluate_steps": 1, "judge": ["tinyworld"], "validation_prompt": "a spoon", "best_by": "both"},
            "knows no words",
        ),
        ({"evaluate_steps": 1, "judge": ["tinyworld"], "validation_prompt": None}, "acts only with validation_prompt"),
        ({"stop_when": "no_better_for=2"}, "acts only where something is measured"),
        ({"best_by": "validation_loss"}, "acts only where something is measured"),
        ({"best_by": "words", "validation_share": 0.4}, "give evaluate_steps"),
        ({"stop_when": "no_better_for=0", "validation_share": 0.4}, "give no_better_for=N"),
        ({"evaluate_steps": 1, "judge": ["tinyworld"], "final_validation_prompt": "a cup"}, "could not be compared"),
        (
            {"evaluate_steps": 1, "judge": ["tinyworld"], "best_by": "validation_loss"},
            "acts only where photographs are held out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_training(
    given: dict[str, Any], said: str, stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=said):
        train(stub_model, drawn, tmp_path / "out", **given)
    assert not list((tmp_path / "out").glob("*.*")), "nothing is written"


KILLED = """
import json, os, signal, sys
from pathlib import Path
from dreamcore.runs import best
from dreamcore.runs.checkpoint import verify
from tests.support.fork_server import changes_files

run = Path(sys.argv[1])

def write(value):
    def fill(folder):
        (folder / "unet").mkdir()
        (folder / "unet" / "weights").write_bytes(bytes([value]) * 1000)
    return fill

def save(update):
    best.save(run, best.Best(update, "subject", float(update)), write(update), {})

def child(death):
    seen = 0
    def watch(event, args):
        nonlocal seen
        if changes_files(event, args):
            seen += 1
            if seen == death:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    save(2)
    os._exit(0)

found, death, code = [], 0, -9
(run / ".dreambooth").mkdir()
while code == -9:
    death += 1
    save(1)
    pid = os.fork() or child(death)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = verify(run / "checkpoint-best")["update"] if (run / "checkpoint-best").exists() else None
    best.put_back(run)
    state = verify(run / "checkpoint-best")
    assert (run / "checkpoint-best" / "unet" / "weights").read_bytes() == bytes([state["update"]]) * 1000
    found.append([left, state["update"]])
print(json.dumps(found))
"""


def test_killed_at_any_moment_it_is_whole_or_absent_and_never_lost(tmp_path: Path) -> None:
    """Before each change of the file system: the one before, none for a moment, or the new one."""
    words = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    found = json.loads(done.stdout)
    kinds = list(dict.fromkeys(map(tuple, found)))
    assert kinds == [(1, 1), (None, 1), (2, 2)], "in that order"


def test_a_killed_run_keeps_the_same_one_in_the_end(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    given = HELD_OUT | {"best_by": None, "stop_when": "no_better_for=2", "max_train_steps": 8, "checkpointing_steps": 2}
    given |= {"pretrained_model_name_or_path": stub_model, "instance_data_dir": drawn, "instance_prompt": "a sks mug"}
    argv = ["train", "--report_to=none", "--train_batch_size=1"]
    argv += [f"--{name}={value}" for name, value in given.items() if value is not None]
    with ForkServer(stub=True) as server:
        log = tmp_path / "log"
        whole = tmp_path / "whole"
        assert server.start([*argv, f"--output_dir={whole}"], log).wait() == 0, log.read_text()
        changes = int(log.read_text().rsplit(": ", 1)[1])
        expected = results(whole), best.read(whole), (whole / "validation.jsonl").read_text()
        assert expected[1] == Best(3, "validation_loss", 2.0, 5.0)
        for death in (changes // 2, changes * 2 // 3, changes * 5 // 6):
            folder, log = tmp_path / f"{death}", tmp_path / f"{death}.log"
            assert server.start([*argv, f"--output_dir={folder}"], log, die_at=death).wait() == -9
            assert server.start([*argv, f"--output_dir={folder}", "--resume_from_checkpoint=latest"], log).wait() == 0
            assert (results(folder), best.read(folder), (folder / "validation.jsonl").read_text()) == expected, death
            assert "checkpoint-best" not in {f.name for f in (folder / RECORDS).iterdir()}
