"""Going on from a checkpoint: the same run as without the break, and a refusal by name where it would not be."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import dreamcore
from dreamcore.errors import ConfigError, RunError
from dreamcore.io.names import RECORDS
from dreamcore.training.loop import Run, train
from dreamcore.training.metrics_recorder import MetricsRecorder

from ..support.runs import PRIOR, configuration, numbers, small_run

FILE = "unet/diffusion_pytorch_model.safetensors"
METHODS: dict[str, dict[str, Any]] = {
    "full": {"train_text_encoder": True, "use_ema": True, "lr_scheduler": "cosine", **PRIOR},
    "lora": {"use_lora": True, "rank": 2, "lora_alpha": 6, "train_text_encoder": True, "lora_dropout": 0.2},
}


@pytest.fixture(scope="module")
def run_of_four(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four updates, checkpoints after two and after four; for copying, not for changing."""
    return small_run(tiny_model, photos, tmp_path_factory.mktemp("four"), checkpointing_steps=2)


@pytest.fixture
def started(run_of_four: Run, tmp_path: Path) -> Path:
    """A copy of that run, broken off before its end."""
    folder = Path(shutil.copytree(run_of_four.folder, tmp_path / "run"))
    (folder / "model_index.json").unlink()
    return folder


def go_on(model: Path, photos: Path, folder: Path, **settings: Any) -> Run:
    settings = {"resume_from_checkpoint": "latest", "checkpointing_steps": 2, **settings}
    return small_run(model, photos, folder, **settings)


@pytest.mark.parametrize("method", METHODS)
def test_a_break_leaves_no_trace(method: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = METHODS[method] | {"checkpointing_steps": 3, "max_train_steps": 6, "center_crop": None}
    whole = small_run(tiny_model, photos, tmp_path / "whole", **settings)
    broken = tmp_path / "broken" / whole.folder.name  # which a LoRA file bears
    shutil.copytree(whole.folder, broken)
    shutil.rmtree(broken / "checkpoint-6")
    for name in ("model_index.json", "pytorch_lora_weights.safetensors"):
        (broken / name).unlink(missing_ok=True)
    resumed = small_run(tiny_model, photos, broken, **settings, resume_from_checkpoint="latest")
    assert numbers(resumed) == numbers(whole)
    for file in [*(whole.folder / "checkpoint-6").rglob("*.safetensors"), *whole.folder.glob("*.safetensors")]:
        mine, theirs = load_file(file), load_file(resumed.folder / file.relative_to(whole.folder))
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=f"{file.name}: {name}")


class Meddles(dreamcore.Callback):
    """Seeds whatever random states there are after each update, and stops the run after two."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_update(self, training: dreamcore.Training, metrics: Any) -> None:
        self.losses.append(metrics["loss"])
        np.random.seed(training.update)
        random.seed(training.update)
        for name, seed in (("torch", "manual_seed"), ("paddle", "seed"), ("mindspore", "set_seed")):
            if name in sys.modules:
                getattr(sys.modules[name], seed)(training.update)
        if training.update == 2:
            training.stop("half of it is done")


def test_a_callback_stops_and_leaves_no_trace(tiny_model: Path, photos: Path, run_of_four: Run, tmp_path: Path) -> None:
    callback, settings = Meddles(), {"checkpointing_steps": 2, "logging_steps": 1}
    run = train(configuration(tiny_model, photos, tmp_path, **settings), [callback])
    assert (run.updates, run.exit_code, run.stopped_by) == (2, 143, "the callback Meddles: half of it is done")
    settings["resume_from_checkpoint"] = "latest"
    run = train(configuration(tiny_model, photos, tmp_path, **settings), [callback])
    assert (run.updates, run.exit_code) == (4, 0)
    assert numbers(run) == numbers(run_of_four) and callback.losses == run_of_four.metrics["loss"].tolist()
    for name in (FILE, f"checkpoint-4/{FILE}", "checkpoint-4/optimizer.safetensors"):
        mine, theirs = load_file(tmp_path / name), load_file(run_of_four.folder / name)
        assert mine.keys() == theirs.keys() and all((mine[key] == theirs[key]).all() for key in mine), name


def test_a_larger_total_goes_on(tiny_model: Path, photos: Path, started: Path, tmp_path: Path) -> None:
    longer = go_on(tiny_model, photos, started, max_train_steps=6)
    straight = small_run(tiny_model, photos, tmp_path / "straight", max_train_steps=6)
    assert numbers(longer) == numbers(straight)


def test_going_on_in_another_folder(tiny_model: Path, photos: Path, started: Path, tmp_path: Path) -> None:
    run = go_on(tiny_model, photos, tmp_path / "new", resume_from_checkpoint=str(started / "checkpoint-2"))
    assert [m["step"] for m in run.metrics] == [3, 4]
    assert sorted(f.name for f in started.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_another_batch_of_the_same_product(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = {"checkpointing_steps": 2, "train_batch_size": 2}
    whole = small_run(tiny_model, photos, tmp_path, **settings)
    shutil.rmtree(tmp_path / "checkpoint-4")
    (tmp_path / "model_index.json").unlink()
    resumed = go_on(tiny_model, photos, tmp_path, train_batch_size=1, gradient_accumulation_steps=2)
    for one, other in zip(whole.metrics, resumed.metrics, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_nothing_to_resume_is_said(
    tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = go_on(tiny_model, photos, tmp_path / "new")
    assert run.updates == 4
    assert "starting anew" in capfd.readouterr().err


def test_a_finished_run_says_so_and_goes_on_only_to_a_larger_total(
    tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small_run(tiny_model, photos, tmp_path)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    for total in (4, 3):
        run = go_on(tiny_model, photos, tmp_path, max_train_steps=total)
        assert (run.updates, run.exit_code) == (4, 0)
        assert "is finished, after 4 updates; a larger max_train_steps goes on with it" in capfd.readouterr().err
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.name != RECORDS} == {
        f: time for f, time in before.items() if f.name != RECORDS
    }, "nothing was touched"
    longer = go_on(tiny_model, photos, tmp_path, max_train_steps=6)
    straight = small_run(tiny_model, photos, tmp_path / "straight", max_train_steps=6)
    assert numbers(longer) == numbers(straight)
    assert "is finished, after 6 updates" in (
        go_on(tiny_model, photos, tmp_path, max_train_steps=5) and capfd.readouterr().err
    )


def test_a_finished_run_without_checkpoints_is_not_lost(
    tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = small_run(tiny_model, photos, tmp_path, checkpoints_total_limit=0)
    assert not list(tmp_path.glob("checkpoint-*"))
    before = (run.folder / FILE).read_bytes()
    for length in (4, None):
        assert go_on(tiny_model, photos, tmp_path, checkpoints_total_limit=0, max_train_steps=length).updates == 4
        assert "is finished" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="finished run without a checkpoint"):
        go_on(tiny_model, photos, tmp_path, max_train_steps=8)
    assert (run.folder / FILE).read_bytes() == before


def test_a_finished_run_is_published_again_in_another_layout(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tiny_model, photos, tmp_path)
    go_on(tiny_model, photos, tmp_path, export_format="ppdiffusers")
    assert (tmp_path / "unet" / "model_state.pdparams").exists()
    assert not (tmp_path / FILE).exists(), "of the former layout nothing is left"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate: was 0.0001, is now 0.001"),
        ({"seed": 5}, "seed: was 0, is now 5"),
        ({"resolution": 64}, "resolution: was 32, is now 64"),
        ({"use_lora": True}, "use_lora: was False, is now True"),
        ({"train_batch_size": 2}, "train_batch_size.*its product has changed"),
        ({"resume_from_checkpoint": "checkpoint-3"}, "checkpoint-3.*checkpoints there: checkpoint-2, checkpoint-4"),
        ({"resume_from_checkpoint": "checkpoint-2"}, "would overwrite checkpoint-4"),
    ],
)
def test_what_cannot_change_is_refused(
    settings: dict[str, Any], words: str, tiny_model: Path, photos: Path, started: Path
) -> None:
    before = sorted(f.name for f in started.iterdir())
    with pytest.raises(ConfigError, match=words):
        go_on(tiny_model, photos, started, **settings)
    assert set(before) <= {f.name for f in started.iterdir()}


def test_damaged_checkpoints_are_not_cleared_away(
    tiny_model: Path, photos: Path, started: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for state in started.glob("checkpoint-*/state.json"):
        state.write_text(state.read_text() + " ")
    with pytest.raises(
        ConfigError, match=r"no whole checkpoint: checkpoint-2, checkpoint-4 cannot be used.*--overwrite"
    ):
        go_on(tiny_model, photos, started)
    assert "altered since it was written" in capfd.readouterr().err
    assert sorted(f.name for f in started.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_a_finished_lora_in_the_new_folder_is_not_lost(
    tiny_model: Path, photos: Path, started: Path, tmp_path: Path
) -> None:
    file = tmp_path / "pytorch_lora_weights.safetensors"
    file.write_bytes(b"another run's")
    with pytest.raises(ConfigError, match="holds another run than the checkpoint's"):
        go_on(tiny_model, photos, tmp_path, resume_from_checkpoint=str(started / "checkpoint-2"))
    assert file.read_bytes() == b"another run's"


def test_other_photographs_are_refused(tiny_model: Path, photos: Path, started: Path, tmp_path: Path) -> None:
    fewer = Path(shutil.copytree(photos, tmp_path / "fewer"))
    sorted(fewer.iterdir())[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in started.rglob("[!.]*")}
    with pytest.raises(ConfigError, match="instance_data_dir: the photographs"):
        go_on(tiny_model, fewer, started, checkpoints_total_limit=1)
    assert before == {path: path.stat().st_mtime_ns for path in started.rglob("[!.]*")}


@pytest.mark.parametrize("part", ["weights", "configuration"])
def test_another_model_is_refused(part: str, tiny_model: Path, photos: Path, started: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    if part == "weights":
        file = other / "vae" / "diffusion_pytorch_model.safetensors"
        data = bytearray(file.read_bytes())
        data[-2] ^= 1
        file.write_bytes(data)
    else:
        config = other / "vae" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.5}))
    with pytest.raises(ConfigError, match="base model is not the one that the checkpoint was trained from$"):
        go_on(other, photos, started)


@pytest.mark.parametrize("length", [{"max_train_steps": 4}, {"num_train_epochs": 1}], ids=str)
def test_the_length_comes_with_the_run(
    length: dict[str, Any], tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without it, a run of more updates than are usual would be at its end at once."""
    settings = {"checkpointing_steps": 2, "max_train_steps": None}
    whole = small_run(tiny_model, photos, tmp_path / "run", **settings | length)
    shutil.rmtree(max((tmp_path / "run").glob("checkpoint-*")))
    resumed = small_run(tiny_model, photos, tmp_path / "run", **settings, resume_from_checkpoint="latest")
    assert (resumed.updates, numbers(resumed)) == (whole.updates, numbers(whole))
    assert "in all, as the run that this goes on with; max_train_steps or" in capfd.readouterr().err


def test_a_runs_folder_is_no_checkpoint(tiny_model: Path, photos: Path, started: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"is the folder of a run; give a checkpoint in it: {started}/checkpoint-4$"):
        go_on(tiny_model, photos, tmp_path / "new", resume_from_checkpoint=str(started))


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "state"])
def test_a_damaged_checkpoint(
    damage: str, tiny_model: Path, photos: Path, started: Path, run_of_four: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    file = started / "checkpoint-4" / ("state.json" if damage == "state" else "optimizer.safetensors")
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "altered":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match=file.name):
        go_on(tiny_model, photos, started, resume_from_checkpoint="checkpoint-4")
    run = go_on(tiny_model, photos, started)
    assert file.name in capfd.readouterr().err
    assert numbers(run) == numbers(run_of_four)
    assert (started / "checkpoint-4.damaged").is_dir(), "set aside, not replaced"


def test_the_limit_keeps_the_newest(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, checkpointing_steps=1, checkpoints_total_limit=2)
    assert sorted(f.name for f in run.folder.glob("*checkpoint*")) == ["checkpoint-3", "checkpoint-4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_update_and_saves(
    number: signal.Signals,
    tiny_model: Path,
    photos: Path,
    tmp_path: Path,
    run_of_four: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = MetricsRecorder.note

    def interrupted(self: MetricsRecorder, update: int, *rest: Any) -> None:
        note(self, update, *rest)
        if update == 3:
            signal.raise_signal(number)

    with monkeypatch.context() as patched:
        patched.setattr(MetricsRecorder, "note", interrupted)
        run = small_run(tiny_model, photos, tmp_path)
    assert (run.updates, run.exit_code) == (3, 128 + number)
    assert (tmp_path / "checkpoint-3").is_dir()
    assert not (tmp_path / "model_index.json").exists()
    assert signal.getsignal(number) != interrupted
    assert numbers(go_on(tiny_model, photos, tmp_path)) == numbers(run_of_four)


def test_the_state_says_whose_it_is(started: Path) -> None:
    state = json.loads((started / "checkpoint-4" / "state.json").read_text())
    assert state["update"] == 4
    assert {"model", "instance_data", "settings", "samples_per_update", "files", "dreambooth"} <= state.keys()
    names = load_file(started / "checkpoint-4" / "optimizer.safetensors").keys()
    assert {"unet.conv_in.weight.exp_avg", "unet.conv_in.weight.exp_avg_sq"} <= names


def test_the_last_checkpoint_can_go_once_all_is_written(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """As diffusers' scripts leave their folders: those of the intervals, as many as the limit says."""
    more: dict[str, Any] = {"checkpointing_steps": 2, "max_train_steps": 5, "checkpoint_last": False}
    run = small_run(tiny_model, photos, tmp_path / "run", **more, checkpoints_total_limit=2)
    assert sorted(f.name for f in run.folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    again = small_run(tiny_model, photos, tmp_path / "run", **more, resume_from_checkpoint="latest")
    assert (again.updates, again.exit_code) == (5, 0), "it is known to be finished"
    more |= {"max_train_steps": 6}
    longer = small_run(tiny_model, photos, tmp_path / "run", **more, resume_from_checkpoint="latest")
    assert longer.updates == 6 and (run.folder / "checkpoint-6").is_dir(), "an interval ends there"
    more |= {"max_train_steps": 1}
    short = small_run(tiny_model, photos, tmp_path / "short", **more)
    assert (short.folder / "checkpoint-1").is_dir(), "a run keeps one to go on from"
