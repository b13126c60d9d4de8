"""A run that takes another's place: what was there is kept until the new model is published, whenever the run dies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamcore.errors import ConfigError, RunError
from dreamcore.io.names import RECORDS
from dreamcore.runs import RunFolder

from ..support.fork_server import ForkServer
from ..support.stub_runs import contents, put_into_state, train

TRACE = ("log.txt", "metrics.jsonl", "config.yaml", "state.json", "report", "records", "status.json", "README.md")
"""Names of files that tell of times and places."""


def results(folder: Path) -> dict[str, bytes]:
    """What a run has written, but for what tells of times, and for the records."""
    files = contents(folder).items()
    return {name: raw for name, raw in files if not name.startswith(RECORDS) and not any(t in name for t in TRACE)}


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    with ForkServer(stub=True) as fork_server:
        yield fork_server


@pytest.fixture
def argv(stub_model: Path, drawn: Path) -> list[str]:
    """A run of three updates with class images beside the photographs."""
    settings = {
        "pretrained_model_name_or_path": stub_model,
        "instance_data_dir": drawn,
        "instance_prompt": "a photo of a sks mug",
        "class_prompt": "a photo of a mug",
        "num_class_images": 2,
        "max_train_steps": 3,
        "train_batch_size": 1,
        "checkpointing_steps": 2,
        "checkpoints_total_limit": 1,
        "validation_prompt": "a cat",
        "num_validation_images": 1,
        "report_to": "none",
    }
    return ["train", "--with_prior_preservation", *(f"--{name}={value}" for name, value in settings.items())]


def test_what_was_there_goes_when_the_new_model_is_there(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    folder, seen = tmp_path / "out", list[list[str]]()
    train(stub_model, drawn, folder)
    old = results(folder)
    publish = RunFolder.publish

    def looking(self: RunFolder, final: Path) -> None:
        aside = folder / RECORDS / "replaced-1"
        assert results(aside) == old
        publish(self, final)
        seen.append(sorted(f.name for f in (folder / RECORDS).iterdir()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "publish", looking)
        train(stub_model, drawn, folder, overwrite_output_dir=True, max_train_steps=3)
    assert seen == [["lock", "manifest.json"]]
    assert sorted(f.name for f in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


def test_a_run_that_fails_keeps_what_it_was_to_replace(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    train(stub_model, drawn, folder)
    old = results(folder)
    for number in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dreamcore.training.loop._Loop.update", lambda self, update: fail())
            with pytest.raises(RunError, match="no"):
                train(stub_model, drawn, folder, overwrite_output_dir=True)
        assert results(folder / RECORDS / "replaced-1") == old, number
    train(stub_model, drawn, folder, resume_from_checkpoint="latest")
    assert not list((folder / RECORDS).glob("replaced-*"))
    assert results(folder) == old


def fail() -> None:
    raise RunError("no")


def test_killed_before_any_change_it_loses_nothing(
    argv: list[str], fork_server: ForkServer, finished: Path, tmp_path: Path
) -> None:
    """Deaths before each change of the file system that clears, moves aside or publishes, and some of the others."""
    alone = tmp_path / "alone"
    assert fork_server.start([*argv, f"--output_dir={alone}"], tmp_path / "alone.log").wait() == 0
    old, new = results(finished), results(alone)
    log = tmp_path / "whole.log"
    shutil.copytree(finished, tmp_path / "whole")
    whole = [*argv, f"--output_dir={tmp_path / 'whole'}", "--overwrite_output_dir"]
    assert fork_server.start(whole, log).wait() == 0, log.read_text()
    changes = int(log.read_text().rsplit(": ", 1)[1])
    for death in range(1, changes + 1, 11):
        folder, log = tmp_path / f"killed-{death}", tmp_path / f"killed-{death}.log"
        shutil.copytree(finished, folder)
        command = [*argv, f"--output_dir={folder}"]
        assert fork_server.start([*command, "--overwrite_output_dir"], log, die_at=death).wait() == -9
        there = results(folder)
        aside = {n: raw for k in (folder / RECORDS).glob("replaced-*") for n, raw in results(k).items()}
        weights = "unet/diffusion_pytorch_model.safetensors"
        if aside or "model_index.json" not in there or there.get(weights) != new[weights]:  # not published
            assert {n for n, raw in old.items() if raw not in (there.get(n), aside.get(n))} == set(), death
        again = "--resume_from_checkpoint=latest" if aside else "--overwrite_output_dir"
        assert fork_server.start([*command, again], log).wait() == 0, (death, log.read_text())
        assert results(folder) == new, death
        assert [f.name for f in (folder / RECORDS).iterdir()] == ["manifest.json"], death
        assert not list(folder.rglob(".*.tmp")), death
        shutil.rmtree(folder)


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_what_another_program_left_among_the_results_stays(
    state: str, stub_model: Path, drawn: Path, finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "out"))
    put_into_state(folder, state)
    mine = {"samples/mine.png": b"1", "unet/notes.txt": b"2", "class_images/own.txt": b"3", "logs/events": b"4"}
    for name, raw in mine.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(raw)
    train(stub_model, drawn, folder, overwrite_output_dir=True, max_train_steps=2)
    assert {name: (folder / name).read_bytes() for name in mine} == mine
    assert sorted(f.name for f in folder.glob("checkpoint-*")) == ["checkpoint-2"]


def test_a_limit_spares_a_checkpoint_that_holds_more(
    stub_model: Path, drawn: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    train(stub_model, drawn, folder, max_train_steps=2)
    (folder / "checkpoint-2" / "notes.txt").write_text("the best one")
    train(stub_model, drawn, folder, resume_from_checkpoint="latest", checkpoints_total_limit=1)
    assert (folder / "checkpoint-2" / "notes.txt").read_text() == "the best one"
    assert "checkpoint-2 is kept beyond checkpoints_total_limit" in capfd.readouterr().err


def test_class_images_are_kept(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    prior = {"with_prior_preservation": True, "class_prompt": "a mug", "num_class_images": 2}
    train(stub_model, drawn, tmp_path, **prior)
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "class_images").glob("*.png")}
    mine = tmp_path / "class_images" / ".notes.tmp"
    mine.write_text("not the run's")
    train(stub_model, drawn, tmp_path, **prior, overwrite_output_dir=True)
    assert len(times) == 2
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "class_images").glob("*.png")} == times
    assert mine.read_text() == "not the run's"


def test_a_run_that_ended_before_training_is_no_run(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dreamcore.training.setup._encode_prompts", lambda *_: fail())
        with pytest.raises(RunError):
            train(stub_model, drawn, tmp_path)
    assert (tmp_path / "config.yaml").exists()
    assert train(stub_model, drawn, tmp_path).updates == 4


def test_a_refused_run_leaves_no_trace(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds log\.txt"):
        train(stub_model, drawn, tmp_path)
    assert [f.name for f in tmp_path.rglob("*")] == ["log.txt"]
