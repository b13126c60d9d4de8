"""The model's own answers kept under words for the class (`diff_output_preservation`), on every backend."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.errors import ConfigError

from ..support.runs import numbers, prepared, small_run, texts
from ..support.tiny import draw_photos

MINDSPORE = installed_backends()[0] == "mindspore"
KEEPS: dict[str, Any] = {"use_lora": True, "diff_output_preservation": True, "learning_rate": 1e-3}
CLASS: dict[str, Any] = {"class_prompt": "a photo of dog"}


@pytest.mark.skipif(MINDSPORE, reason="slow on a CPU; tests/crossing compares its updates with PyTorch's")
def test_a_larger_batch_is_accumulation_and_a_run_goes_on_as_it_began(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    """Factors that have learned nothing change no answer; what they learn then does."""
    more = {"diff_output_preservation_multiplier": 3.0, "train_text_encoder": True, "use_ema": True}
    settings = KEEPS | CLASS | more | {"max_train_steps": 3}
    at_once = small_run(tiny_model, photos, tmp_path / "a", train_batch_size=2, **settings)
    parts = settings | {"gradient_accumulation_steps": 2, "checkpointing_steps": 2}
    in_parts = small_run(tiny_model, photos, tmp_path / "b", **parts)
    for one, other in zip(at_once.metrics, in_parts.metrics, strict=True):
        for name in ("loss", "loss_instance", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name
        assert one["loss"] == pytest.approx(one["loss_instance"] + 3 * one["loss_preservation"], rel=1e-12)
    kept = [record["loss_preservation"] for record in at_once.metrics]
    assert kept[0] < 1e-9 and min(kept[1:]) > 1e-6
    resumed = parts | {"resume_from_checkpoint": str(tmp_path / "b" / "checkpoint-2")}
    again = small_run(tiny_model, photos, tmp_path / "c", **resumed)
    assert numbers(again)[-1] == numbers(in_parts)[-1]


def test_captions_speak_of_the_class(tiny_model: Path, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", count=4)
    (photos / "00.txt").write_text("sks dog on grass, by sks, not sksy")
    (photos / "01.txt").write_text("in snow, {identifier}")
    (photos / "02.txt").write_text("at sea")
    captions = KEEPS | {"use_captions": True, "identifier": "sks", "class_word": "dog"}
    with pytest.raises(ConfigError, match=r"02\.png: 'at sea' has no 'sks' that the class could take the place of"):
        small_run(tiny_model, photos, tmp_path / "out", **captions)
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, **captions, class_prompt="a photo of a dog")
        said = {}
        for update in range(8):
            (rows,), (batch,) = run.batcher.plan.micro_batches(update), run.batcher.micro_batches(update)
            said |= {rows[0].image: texts(run, batch)}
    assert said == {
        0: ["sks dog on grass, by sks, not sksy", "dog on grass, by dog, not sksy"],
        1: ["in snow, sks", "in snow, dog"],
        2: ["at sea", "a photo of a dog"],
        3: ["a photo of sks dog", "a photo of a dog"],
    }


def test_what_is_refused(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    for given, words in (
        (KEEPS, "class_prompt: diff_output_preservation needs one"),
        (KEEPS | CLASS | {"use_lora": False}, "acts only with use_lora.*second copy.*with_prior_preservation"),
        (CLASS, "class_prompt=.*: acts only with with_prior_preservation or diff_output_preservation"),
    ):
        with pytest.raises(ConfigError, match=words):
            small_run(tiny_model, photos, tmp_path / "out", **given)
