"""Several subjects in one run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import TrainConfig, load_config
from dreamcore.data.image_set import CLASS, INSTANCE
from dreamcore.errors import ConfigError
from dreamcore.training.loop import train

from ..support.runs import CONCEPTS, PRIOR, configuration, numbers, prepared, small_run, texts
from ..support.tiny import draw_photos


def test_one_concept_in_a_list_is_the_run_without_it(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    plain = small_run(tiny_model, photos, tmp_path / "a", **PRIOR)
    concept = {
        "instance_data_dir": str(photos),
        "instance_prompt": "a photo of sks dog",
        "class_prompt": PRIOR["class_prompt"],
        "class_data_dir": str(tmp_path / "a" / "class_images"),
    }
    listed = small_run(
        tiny_model, photos, tmp_path / "b", **CONCEPTS, concepts=[concept], **{**PRIOR, "class_prompt": None}
    )
    assert numbers(listed) == numbers(plain)


def test_each_concept_has_its_words_share_and_prior(tiny_model: Path, tmp_path: Path) -> None:
    """Two subjects, the first with a prior and the second with three times as many places for each photograph."""
    folders = [draw_photos(tmp_path / name, count=2, seed=k) for k, name in enumerate(("one", "two"))]
    concepts: list[dict[str, Any]] = [
        {"instance_data_dir": str(folders[0]), "instance_prompt": "a sks dog", "class_prompt": "a dog"},
        {"instance_data_dir": str(folders[1]), "instance_prompt": "a red toy", "weight": 1.5, "repeats": 2},
    ]
    settings = {**CONCEPTS, **PRIOR, "class_prompt": None, "concepts": concepts, "train_batch_size": 4}
    with ExitStack() as stack:
        run = prepared(tiny_model, folders[0], tmp_path / "out", stack, prior_loss_weight=0.5, **settings)
        batches = [run.batcher.micro_batches(update)[0] for update in range(4)]
        rows = [run.batcher.plan.micro_batches(update)[0] for update in range(4)]
    assert run.batcher.plan.updates_per_epoch == 2
    wanted = {(0, INSTANCE): ("a sks dog", 1.0), (1, INSTANCE): ("a red toy", 1.0), (0, CLASS): ("a dog", 0.5)}
    counts = dict.fromkeys(wanted, 0)
    for batch, some in zip(batches, rows, strict=True):
        for row, text, weight in zip(some, texts(run, batch), batch.weight, strict=True):
            counts[row.concept, row.kind] += 1
            assert (text, pytest.approx(float(weight) * 4)) == wanted[row.concept, row.kind]
    assert counts == {(0, INSTANCE): 4, (1, INSTANCE): 12, (0, CLASS): 4}
    latents = {
        (row.concept, row.image): run.batcher.latents(row).mean for some in rows for row in some if row.kind == INSTANCE
    }
    assert len({latent.tobytes() for latent in latents.values()}) == 4, "every photograph is its own"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concepts": []}, "concepts: an empty list"),
        ({"concepts": [{"instance_prompt": "x"}]}, r"concepts\.0\.instance_data_dir: required"),
        ({"concepts": [{"instance_data_dir": "x"}]}, r"concepts\.0\.instance_prompt: required"),
        (
            {"concepts": [{"instance_data_dir": "x", "instance_prompt": "y", "class_prompt": "z"}]},
            r"concepts\.0\.class_prompt: has no use",
        ),
        (
            {"concepts": [{"instance_data_dir": "x", "instance_prompt": "y", "class_data_dir": "z"}]},
            r"concepts\.0\.class_data_dir: has no use",
        ),
        ({"concepts": [{"instance_data_dir": "x", "instance_prompt": "y"}], "repeats": 2}, "repeats: given together"),
        ({"concepts": [{"instance_data_dir": "x", "instance_prompt": "y", "weight": 0}]}, r"concepts\.0\.weight"),
    ],
)
def test_concepts_that_cannot_be_used_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        configuration(tmp_path, tmp_path, tmp_path, **{**CONCEPTS, **settings})


def test_each_concept_has_held_out_photographs_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    folders = [draw_photos(tmp_path / name, count=2, seed=k) for k, name in enumerate(("one", "two", "held"))]
    concepts: list[dict[str, Any]] = [
        {"instance_data_dir": str(folders[0]), "instance_prompt": "a sks dog"},
        {"instance_data_dir": str(folders[1]), "instance_prompt": "a red toy", "validation_data_dir": str(folders[2])},
    ]
    with ExitStack() as stack:
        run = prepared(tiny_model, folders[0], tmp_path / "out", stack, **CONCEPTS, concepts=concepts)
        assert run.held_out is not None
        words = [run.batcher.prompts.prompts[number] for number in run.held_out.prompts]
    assert words == ["a red toy", "a red toy"]
    (part,) = run.data.held_out
    assert {photo.path.parent for photo in part.images.photos} == {folders[2]}
    with pytest.raises(ConfigError, match="validation_data_dir: given together with concepts; put it into each"):
        configuration(
            tiny_model, folders[0], tmp_path, **CONCEPTS, concepts=concepts, validation_data_dir=str(folders[2])
        )


def test_a_run_of_several_concepts_repeats_and_resumes(tiny_model: Path, tmp_path: Path) -> None:
    """From its written configuration to the same numbers; and from a checkpoint to the same rest."""
    folders = [draw_photos(tmp_path / name, count=count, seed=count) for name, count in (("one", 2), ("two", 3))]
    concepts: list[dict[str, Any]] = [
        {"instance_data_dir": str(folders[0]), "instance_prompt": "a sks dog", "class_prompt": "a dog"},
        {"instance_data_dir": str(folders[1]), "instance_prompt": "a red toy", "class_prompt": "a toy", "weight": 2.0},
    ]
    settings = {**CONCEPTS, **PRIOR, "class_prompt": None, "concepts": concepts, "checkpointing_steps": 2}
    whole = small_run(tiny_model, folders[0], tmp_path / "a", **settings)
    assert {f.name for f in (tmp_path / "a").glob("class_images*")} == {"class_images", "class_images_2"}
    written = load_config(TrainConfig, whole.folder / "config.yaml", {"output_dir": str(tmp_path / "b")})
    assert numbers(train(written)) == numbers(whole)
    small_run(tiny_model, folders[0], tmp_path / "c", **settings, max_train_steps=2)
    for folder, concept in zip(folders, concepts, strict=True):  # where they lie plays no part
        concept["instance_data_dir"] = str(folder.rename(folder.with_name(f"moved_{folder.name}")))
    rest = small_run(tiny_model, tmp_path / "moved_one", tmp_path / "c", **settings, resume_from_checkpoint="latest")
    assert numbers(rest) == numbers(whole)
