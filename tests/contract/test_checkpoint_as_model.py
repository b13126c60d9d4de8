"""A checkpoint of full training can be looked at: a model like the one that its run would have made of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

import dreamcore
from dreamcore.commands.judged import read_picture
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder

from ..support import needs
from ..support.runs import small_run

pytestmark = needs.backend


def test_a_checkpoint_is_the_model_that_its_run_would_have_made(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    taught = {"train_text_encoder": True, "checkpointing_steps": 1}
    run = small_run(tiny_model, photos, tmp_path / "run", **taught, max_train_steps=2).folder
    checkpoint = run / "checkpoint-1"
    made = small_run(
        tiny_model, photos, tmp_path / "made", **taught, max_train_steps=1, resume_from_checkpoint=str(checkpoint)
    ).folder
    assert ModelFolder.open(str(checkpoint)).fingerprint == ModelFolder.open(str(made)).fingerprint
    assert ModelFolder.open(str(checkpoint)).fingerprint != ModelFolder.open(str(run)).fingerprint
    asked = {"prompt": "a photo of sks dog", "num_inference_steps": 2, "height": 32, "width": 32}
    one, other = (
        dreamcore.generate(pretrained_model_name_or_path=str(model), output_dir=str(tmp_path / name), **asked)[0]
        for model, name in ((checkpoint, "one"), (made, "other"))
    )
    np.testing.assert_array_equal(read_picture(one), read_picture(other))
    dreamcore.convert(source=str(checkpoint), target=str(tmp_path / "whole"))
    assert ModelFolder.open(str(tmp_path / "whole")).fingerprint == ModelFolder.open(str(made)).fingerprint


def test_averages_are_made_by_the_command_that_it_names(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(
        tiny_model, photos, tmp_path / "run", use_ema=True, ema_decay=0.5, checkpointing_steps=2, max_train_steps=3
    ).folder
    checkpoint = run / "checkpoint-2"
    with pytest.raises(ConfigError, match="its finished weights are averages") as refusal:
        ModelFolder.open(str(checkpoint))
    words = shlex.split(str(refusal.value).partition("dreambooth train ")[2])
    given = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    assert given == {
        "config": str(run / "config.yaml"),
        "resume_from_checkpoint": str(checkpoint),
        "max_train_steps": "2",
        "output_dir": "NEW_FOLDER",
    }
    made = dreamcore.train(given.pop("config"), **(given | {"output_dir": str(tmp_path / "made")})).folder
    assert (made / "model_index.json").is_file()


def test_a_checkpoint_of_a_run_that_has_not_finished_says_so(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path / "run", checkpointing_steps=1, max_train_steps=2).folder
    (run / "model_index.json").unlink()
    with pytest.raises(ConfigError, match="has no finished model"):
        ModelFolder.open(str(run / "checkpoint-1"))
