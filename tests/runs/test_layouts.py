"""Second names of results: where they lie, whose files they never touch, and what becomes of them later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import dreamcore
from dreamcore.errors import ConfigError
from dreamcore.io.names import RECORDS
from dreamcore.runs import layout
from dreamcore.training import run_report

from ..support.paths import ROOT
from ..support.stub_backend import StubBackend
from ..support.stub_runs import contents, train

LOOKS = {
    "structured-lora": ("validation_images/step_{}_{}.png", "validation_images"),
    "mindone": ("logs/validation/step{}/{}.png", "logs"),
}
"""By layout: a validation image's second name, and the folder that it fills."""
MOMENT = datetime(2026, 3, 4, 5, 6, 7)


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than all the rest of such a run, and lies under one name in every layout."""
    monkeypatch.setattr(run_report, "write_report", lambda folder: None)


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> str:
    """All runs begin in the same second, whose name this is."""
    clock = SimpleNamespace(time=MOMENT.timestamp, strftime=time.strftime, localtime=time.localtime)
    monkeypatch.setattr(layout, "time", clock)
    return MOMENT.strftime("%Y%m%d_%H%M%S")


@pytest.mark.parametrize("name", LOOKS)
def test_images_have_second_names_of_the_same_bytes(name: Any, stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    run = train(stub_model, drawn, tmp_path / "out", layout=name).folder
    pattern, folder = LOOKS[name]
    expected = {
        pattern.format(step, k): (run / "samples" / f"step-{step:06}-{k}.png").read_bytes()
        for step in (0, 2, 4)
        for k in range(2)
    }
    assert {n: data for n, data in contents(run).items() if n.startswith(f"{folder}/")} == expected
    assert (run / "log.log").exists() == (name == "structured-lora")


def test_each_run_has_a_dated_folder(stub_model: Path, drawn: Path, tmp_path: Path, one_second: str) -> None:
    folders = [train(stub_model, drawn, tmp_path / "work", layout="structured-lora").folder for _ in range(2)]
    assert folders == [tmp_path / "work" / one_second, tmp_path / "work" / f"{one_second}-2"]
    for folder in folders:
        assert (folder / "log.log").read_bytes() == (folder / "log.txt").read_bytes()
        assert b"run ended: finished" in (folder / "log.log").read_bytes()


def test_where_the_disk_has_no_links_there_are_copies(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(layout.os, "link", refuse)
    run = train(stub_model, drawn, tmp_path, layout="structured-lora").folder
    assert (run / "log.log").read_bytes() == (run / "log.txt").read_bytes(), "anew at the end"
    assert sorted(f.name for f in run.glob("log*")) == ["log.log", "log.txt"]
    assert len(list((run / "validation_images").iterdir())) == 6


def test_latest_goes_on_with_the_newest_run(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for day, updates in (("20260101", 4), ("20260102", 2)):
        train(stub_model, drawn, work / f"{day}_000000", max_train_steps=updates)
    (work / "20260103_000000").mkdir()
    (work / "20260104_notes.txt").write_text("mine")
    run = train(stub_model, drawn, work, layout="structured-lora", resume_from_checkpoint="latest")
    assert (run.folder, run.updates) == (work / "20260102_000000", 4)
    assert [m["step"] for m in run.metrics] == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match="resume_from_checkpoint: .*none: no run with a checkpoint there to go on"):
        train(stub_model, drawn, tmp_path / "none", layout="structured-lora", resume_from_checkpoint="latest")


def test_its_configuration_makes_another_run_beside_it(
    stub_model: Path, drawn: Path, tmp_path: Path, one_second: str
) -> None:
    first = train(stub_model, drawn, tmp_path / "work", layout="structured-lora").folder
    before = contents(first)
    second = dreamcore.train(str(first / "config.yaml")).folder
    assert second == tmp_path / "work" / f"{one_second}-2"
    assert contents(first) == before
    assert (second / "config.yaml").read_bytes() == (first / "config.yaml").read_bytes()


def test_processes_of_a_launcher_agree(tmp_path: Path) -> None:
    """The time is that of the process which has started them, not their own."""
    code = "import sys; from dreamcore.runs.layout import output_folder as o; print(o(sys.argv[1], sys.argv[2], None))"
    environment = os.environ | {"WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path), "structured-lora"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    begun = datetime.fromtimestamp(psutil.Process().create_time())
    assert said == f"{tmp_path / begun.strftime('%Y%m%d_%H%M%S')}\n"


def test_a_strangers_image_stays(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    mine = tmp_path / "logs" / "validation" / "step2" / "0.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"my own")
    for more in ({}, {"resume_from_checkpoint": "latest", "max_train_steps": 6}, {"overwrite_output_dir": True}):
        train(stub_model, drawn, tmp_path, layout="mindone", **more)
        assert mine.read_bytes() == b"my own"
        assert sorted(f.name for f in mine.parent.iterdir()) == ["0-2.png", "0.png", "1.png"]
        sample = tmp_path / "samples" / "step-000002-0.png"
        assert mine.with_name("0-2.png").read_bytes() == sample.read_bytes()


def test_a_strangers_log_and_image_stay_in_a_run_that_is_gone_on_with(
    stub_model: Path, drawn: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "20260101_000000"
    train(stub_model, drawn, folder, max_train_steps=2)
    image = folder / "validation_images" / "step_4_0.png"
    image.parent.mkdir()
    for file in (image, folder / "log.log"):
        file.write_bytes(b"my own")
    for updates in (4, 6):
        settings = {"layout": "structured-lora", "resume_from_checkpoint": "latest", "max_train_steps": updates}
        assert train(stub_model, drawn, tmp_path, **settings).folder == folder
    assert image.read_bytes() == (folder / "log.log").read_bytes() == b"my own"
    assert sorted(f.name for f in folder.glob("log*.log")) == ["log-2.log", "log.log"], "one of ours is enough"
    assert (folder / "log-2.log").read_bytes() == (folder / "log.txt").read_bytes()


def test_a_strangers_link_that_leads_nowhere_stays(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    link = tmp_path / "logs" / "validation" / "step2" / "0.png"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "on a disk that is not mounted")
    train(stub_model, drawn, tmp_path, layout="mindone")
    assert link.is_symlink() and not link.exists()
    assert link.with_name("0-2.png").is_file()


@pytest.mark.parametrize("name", ["structured-lora", "mindone", "mindone-sd2"])
def test_photographs_where_second_names_go_are_refused(
    name: str, stub_model: Path, drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "20260101_000000"
    place = out / {"mindone-sd2": "ckpt"}.get(name, LOOKS.get(name, ("", ""))[1])
    place.parent.mkdir()
    photos = Path(shutil.copytree(drawn, place))
    train(stub_model, photos, out, max_train_steps=2)  # where it is no place of results
    dated = name == "structured-lora"
    settings = {"resume_from_checkpoint": "latest"} if dated else {"overwrite_output_dir": True}
    with pytest.raises(ConfigError, match=f"instance_data_dir: {place}: lies in {place}, where a run in output_dir"):
        train(stub_model, photos, tmp_path if dated else out, layout=name, **settings)


def test_an_earlier_runs_second_names_go_with_the_rest(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(stub_model, drawn, tmp_path, layout="mindone").folder
    before, place = contents(run), "logs/validation/step2/1.png"

    def fails(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(StubBackend, "train_step", fails)
        train(stub_model, drawn, tmp_path, layout="mindone", overwrite_output_dir=True)
    assert (run / RECORDS / "replaced-1" / place).read_bytes() == before[place]
    assert not (run / place).exists() and (run / "logs/validation/step0/1.png").exists()
    train(stub_model, drawn, tmp_path, overwrite_output_dir=True)
    assert not (run / "logs").exists() and not (run / RECORDS / "replaced-1").exists()


def test_what_is_half_written_goes(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    """What a killed run leaves of a file on record; files of others with such names stay."""
    train(stub_model, drawn, tmp_path, layout="mindone")
    left, other = (tmp_path / "logs" / "validation" / "step2" / f".{name}.png.123.tmp" for name in ("0", "mine"))
    for file in (left, other):
        file.write_bytes(b"half")
    train(stub_model, drawn, tmp_path, layout="mindone", resume_from_checkpoint="latest")
    assert not left.exists() and other.exists()


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_images_of_a_run_that_was_killed_before_their_second_names_have_them_later(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("dreamcore.training.looking.also_images", killed_after(1, layout.also_images))
        with pytest.raises(KeyboardInterrupt):
            train(stub_model, drawn, tmp_path, layout="mindone")
    first, second = tmp_path / "samples" / "step-000002-0.png", tmp_path / "logs" / "validation" / "step2" / "0.png"
    assert first.exists() and not second.exists()
    train(stub_model, drawn, tmp_path, layout="mindone", resume_from_checkpoint="latest")
    assert second.read_bytes() == first.read_bytes()


def killed_after(calls: int, function: Any) -> Any:
    """`function`, which stands for a kill once it has been called so often."""
    left = iter(range(calls))

    def call(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        function(*arguments)

    return call


def test_weights_of_a_run_that_was_killed_before_their_second_name_have_it_later(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: Path, file: Path) -> None:
        file.write_bytes((model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())

    settings: Any = {
        "layout": "mindone-sd2",
        "checkpointing_steps": 3,
        "validation_prompt": None,
        "validation_steps": None,
    }
    settings |= {"num_validation_images": None}
    with monkeypatch.context() as patch:
        patch.setattr("dreamcore.training.second_names.write_ldm_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train(stub_model, drawn, tmp_path, **settings)
    assert [f.name for f in tmp_path.glob("ckpt/rank_0/*")] == []
    monkeypatch.setattr("dreamcore.training.second_names.write_ldm_checkpoint", write)
    train(stub_model, drawn, tmp_path, resume_from_checkpoint="latest", **settings)
    first = tmp_path / "checkpoint-3" / "unet" / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "ckpt" / "rank_0" / "sd-1.ckpt").read_bytes() == first.read_bytes()
