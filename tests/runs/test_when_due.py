"""When a run looks at its model and saves it, and what of its photographs' scaling is kept for later runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamcore.errors import ConfigError
from dreamcore.track.metrics import read_lines
from dreamcore.training import run_report
from dreamcore.training.latents import Latents

from ..support.stub_backend import StubBackend
from ..support.stub_runs import train


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than all the rest of such a run."""
    monkeypatch.setattr(run_report, "write_report", lambda folder: None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompt of each validation, in turn."""
    found: list[str] = []
    whole = StubBackend.sample
    monkeypatch.setattr(StubBackend, "sample", lambda self, r: found.append(r.prompts[0]) or whole(self, r))
    return found


def samples(folder: Path) -> list[int]:
    """The updates after which there are images."""
    return sorted({int(file.name.split("-")[1]) for file in (folder / "samples").glob("*.png")})


def test_the_last_images_may_have_words_of_their_own(
    stub_model: Path, drawn: Path, tmp_path: Path, asked: list[str]
) -> None:
    run = train(stub_model, drawn, tmp_path, final_validation_prompt="at last, {instance_prompt}")
    assert asked == ["a mug", "a mug", "at last, a photo of a sks mug"]
    assert samples(run.folder) == [0, 2, 4]
    asked.clear()
    settings = {"resume_from_checkpoint": "latest", "max_train_steps": 6}
    train(stub_model, drawn, tmp_path, final_validation_prompt="at last", **settings)
    assert asked == ["at last"], "what was the last update is an update like others now, and has its images"


def test_the_last_images_may_be_left_out(stub_model: Path, drawn: Path, tmp_path: Path, asked: list[str]) -> None:
    """And with them the loss on held-out photographs."""
    run = train(stub_model, drawn, tmp_path, skip_final_inference=True, validation_data_dir=str(drawn))
    assert asked == ["a mug", "a mug"]
    assert samples(run.folder) == [0, 2]
    assert [record["step"] for record in read_lines(run.folder / "validation.jsonl")] == [0, 2]
    assert (run.folder / "model_index.json").is_file()
    with pytest.raises(ConfigError, match="final_validation_prompt='b': acts only without skip_final_inference"):
        train(stub_model, drawn, tmp_path / "other", skip_final_inference=True, final_validation_prompt="b")


def test_checkpoints_come_after_epochs(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    """Of three photographs, one at a time; and after the last, wherever it is."""
    settings: dict[str, Any] = {"checkpointing_steps": None, "max_train_steps": None, "validation_prompt": None}
    settings |= {"validation_steps": None, "num_validation_images": None, "checkpointing_epochs": 2}
    run = train(stub_model, drawn, tmp_path, **settings, num_train_epochs=5)
    assert sorted(f.name for f in run.folder.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-15", "checkpoint-6"]
    both = settings | {"checkpointing_steps": 2}
    with pytest.raises(ConfigError, match="checkpointing_epochs: given together with checkpointing_steps"):
        train(stub_model, drawn, tmp_path / "other", **both, num_train_epochs=5)


def test_latents_are_kept_by_how_photographs_were_scaled(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    whole = Latents._planes
    monkeypatch.setattr(Latents, "_planes", lambda self, s: encoded.extend(one.image for one in s) or whole(self, s))
    settings: dict[str, Any] = {"latent_cache_dir": str(tmp_path / "kept"), "center_crop": True, "max_train_steps": 3}
    counts = []
    for number, mode in enumerate(("lanczos", "nearest", None, "nearest", "hamming")):
        encoded.clear()
        train(stub_model, drawn, tmp_path / f"{number}", **settings, image_interpolation_mode=mode)
        counts.append(len(encoded))
    assert counts == [3, 3, 0, 0, 3]


def test_photographs_are_not_scaled_otherwise_in_the_middle(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    run = train(stub_model, drawn, tmp_path / "out", image_interpolation_mode="bicubic")
    shutil.rmtree(run.folder / "checkpoint-4")
    (run.folder / "model_index.json").unlink()
    for other, words in ((None, "was 'bicubic', is now 'lanczos'"), ("box", "was 'bicubic', is now 'box'")):
        with pytest.raises(ConfigError, match=f"image_interpolation_mode: {words}"):
            train(stub_model, drawn, run.folder, image_interpolation_mode=other, resume_from_checkpoint="latest")
    settings = {"image_interpolation_mode": "bicubic", "resume_from_checkpoint": "latest"}
    assert train(stub_model, drawn, run.folder, **settings).updates == 4
