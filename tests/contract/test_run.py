"""A run from photographs to results: what it writes, what it repeats, what it refuses to disturb."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from dreamcore.config import TrainConfig, load_config
from dreamcore.errors import ConfigError, RunError
from dreamcore.io.locks import held
from dreamcore.io.names import LORA_FILE, RECORDS
from dreamcore.training.loop import train
from dreamcore.training.setup import prepare

from ..support.runs import PRIOR, configuration, numbers, small_run

FULL = {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json"}


def test_a_full_run_leaves_a_whole_pipeline(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, checkpointing_steps=2)
    names = {f.name for f in run.folder.iterdir()}
    assert names >= FULL | {"config.yaml", "metrics.jsonl", "log.txt", "report.html", "checkpoint-2", "checkpoint-4"}
    assert [m["step"] for m in run.metrics] == [1, 2, 3, 4]
    assert (run.updates, run.exit_code) == (4, 0)
    before = (tiny_model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert (run.folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() != before
    for untouched in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (run.folder / untouched).read_bytes() == (tiny_model / untouched).read_bytes()


def test_a_lora_run_leaves_its_file_alone(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, use_lora=True)
    assert (run.folder / "pytorch_lora_weights.safetensors").is_file()
    assert not (run.folder / "model_index.json").exists()


def test_the_written_configuration_repeats_the_run(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    first = small_run(
        tiny_model,
        photos,
        tmp_path / "a",
        center_crop=None,
        random_flip=True,
        use_lora=True,
        rank=2,
        lr_scheduler="cosine",
    )
    config = load_config(TrainConfig, first.folder / "config.yaml", {"output_dir": str(tmp_path / "b")})
    again = train(config)
    assert numbers(again) == numbers(first)
    settings = [yaml.safe_load((r.folder / "config.yaml").read_text()) for r in (first, again)]
    for one in settings:
        del one["output_dir"]
    assert settings[0] == settings[1]


def test_looking_does_not_disturb(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    plain = small_run(tiny_model, photos, tmp_path / "a", **PRIOR)
    looking = small_run(
        tiny_model,
        photos,
        tmp_path / "b",
        **PRIOR,
        validation_prompt="a photo of sks dog in snow",
        validation_steps=1,
        num_validation_images=2,
        validation_num_inference_steps=2,
        validation_data_dir=str(photos),
        logging_steps=1,
        checkpointing_steps=1,
    )
    assert numbers(looking) == numbers(plain)
    samples = sorted(f.name for f in (looking.folder / "samples").iterdir())
    assert samples == [f"step-{step:06}-{k}.png" for step in range(5) for k in range(2)]
    held_out = [json.loads(line) for line in (looking.folder / "validation.jsonl").read_text().splitlines()]
    assert [r["step"] for r in held_out] == [0, 1, 2, 3, 4]
    assert len({r["validation_loss"] for r in held_out}) == 5, "the model changes, so its loss does"


def test_the_cache_changes_nothing(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    random = {"center_crop": None, "random_flip": True}
    cached = small_run(tiny_model, photos, tmp_path / "a", **random)
    fresh = small_run(tiny_model, photos, tmp_path / "b", **random, cache_latents=False)
    on_disk = small_run(tiny_model, photos, tmp_path / "c", **random, cache_memory_gb=1e-9)
    assert numbers(cached) == numbers(fresh) == numbers(on_disk)
    drawn_anew = small_run(tiny_model, photos, tmp_path / "d", **random, instance_variants=0)
    assert numbers(drawn_anew) != numbers(cached)


def test_accumulation_is_a_larger_batch(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    at_once = small_run(tiny_model, photos, tmp_path / "a", train_batch_size=4, **PRIOR)
    in_parts = small_run(tiny_model, photos, tmp_path / "b", train_batch_size=1, gradient_accumulation_steps=4, **PRIOR)
    for one, other in zip(at_once.metrics, in_parts.metrics, strict=True):
        for name in ("loss", "loss_instance", "loss_prior", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-5), name


def test_the_loss_is_the_sum_that_is_promised(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, **PRIOR, prior_loss_weight=0.3)
    for record in run.metrics:
        assert record["loss"] == pytest.approx(record["loss_instance"] + 0.3 * record["loss_prior"], rel=1e-12)


def test_gradient_checkpointing_changes_nothing(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    plain = small_run(tiny_model, photos, tmp_path / "a", train_text_encoder=True)
    again = small_run(tiny_model, photos, tmp_path / "b", train_text_encoder=True, gradient_checkpointing=True)
    for one, other in zip(plain.metrics, again.metrics, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)


def test_each_caption_reaches_its_photograph(tiny_model: Path, tmp_path: Path) -> None:
    """Two photographs with unlike captions give other losses than the same two with the captions exchanged."""
    runs = []
    for order in ((0, 1), (1, 0)):
        folder = tmp_path / f"photos{order[0]}"
        folder.mkdir()
        for i, place in enumerate(order):
            Image.new("RGB", (40, 40), [(200, 30, 30), (20, 40, 220)][i]).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text(["a red toy", "a blue car in snow"][place])
        output = tmp_path / f"out{order[0]}"
        runs.append(small_run(tiny_model, folder, output, use_captions=True, instance_prompt=None))
    assert numbers(runs[0]) != numbers(runs[1])


def test_caption_dropout_trains_the_empty_prompt(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    dropped = small_run(tiny_model, photos, tmp_path / "a", caption_dropout=1.0)
    empty = small_run(tiny_model, photos, tmp_path / "b", instance_prompt=" ")
    plain = small_run(tiny_model, photos, tmp_path / "c")
    assert numbers(dropped)[0]["loss"] == pytest.approx(numbers(empty)[0]["loss"], rel=1e-6)
    assert numbers(dropped)[0]["loss"] != numbers(plain)[0]["loss"]


def test_what_trains_is_what_was_asked_for(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, train_text_encoder=True)
    name = "text_encoder/model.safetensors"
    assert (run.folder / name).read_bytes() != (tiny_model / name).read_bytes()
    assert {"lr", "lr_text_encoder"} <= run.metrics[0].keys()


def test_epochs_count_the_longer_list(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """Five photographs and seven class images, two at a time: ⌈7 / 2⌉ updates an epoch."""
    run = small_run(
        tiny_model,
        photos,
        tmp_path,
        max_train_steps=None,
        num_train_epochs=2,
        train_batch_size=2,
        **{**PRIOR, "num_class_images": 7},
    )
    assert run.updates == 8


def test_two_runs_cannot_share_a_folder(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tiny_model, photos, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already.*overwrite_output_dir"):
        small_run(tiny_model, photos, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    keep = tmp_path / "mine.txt"
    keep.write_text("not the run's")
    run = small_run(tiny_model, photos, tmp_path, overwrite_output_dir=True, max_train_steps=2)
    assert [m["step"] for m in run.metrics] == [1, 2]
    assert keep.read_text() == "not the run's"


def test_a_loss_that_is_not_finite_stops_the_run(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="update [0-9]+: the (loss|norm of the gradient) is (nan|inf).*learning_rate"):
        small_run(
            tiny_model, photos, tmp_path, learning_rate=1e30, max_grad_norm=0, max_train_steps=12, checkpointing_steps=1
        )
    for folder in tmp_path.glob("checkpoint-*"):
        state = json.loads((folder / "state.json").read_text())
        assert state["update"] <= len((tmp_path / "metrics.jsonl").read_text().splitlines())
    assert not (tmp_path / "model_index.json").exists()


def test_the_moving_average_is_what_is_exported(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """With warm-up min(0.9999, (1 + n)/(10 + n)) the average lags: nearer to the start than the weights."""
    plain = small_run(tiny_model, photos, tmp_path / "a", checkpointing_steps=4)
    averaged = small_run(tiny_model, photos, tmp_path / "b", use_ema=True, checkpointing_steps=4)
    assert numbers(plain) == numbers(averaged)
    file = "unet/diffusion_pytorch_model.safetensors"
    start, trained, average = (load_file(f / file) for f in (tiny_model, plain.folder, averaged.folder))
    raw = load_file(averaged.folder / "checkpoint-4" / file)
    name = "conv_in.weight"
    np.testing.assert_array_equal(raw[name], trained[name])
    assert 0 < np.abs(average[name] - start[name]).max() < np.abs(trained[name] - start[name]).max()


def test_python_and_command_line_refuse_alike(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rank=8: acts only with use_lora"):
        train(configuration(tiny_model, photos, tmp_path, rank=8))
    assert not (tmp_path / "config.yaml").exists(), "refused before anything was written"


def test_the_users_own_files_are_not_taken_for_a_run(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "unet" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("not the run's")
    for settings in ({}, {"overwrite_output_dir": True}, {"resume_from_checkpoint": "latest"}):
        with pytest.raises(
            ConfigError, match=r"holds unet, where this run would write.*choose another folder, such as"
        ):
            small_run(tiny_model, photos, tmp_path, **settings)
    assert mine.read_text() == "not the run's"


def test_what_a_killed_run_left_half_written_goes(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tiny_model, photos, tmp_path, max_train_steps=1)
    left = tmp_path / RECORDS / "checkpoint-3" / "unet"
    left.mkdir(parents=True)
    small_run(tiny_model, photos, tmp_path, max_train_steps=1, overwrite_output_dir=True)
    assert [f.name for f in (tmp_path / RECORDS).iterdir()] == ["manifest.json"]


def test_another_run_at_work_is_noticed(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(ConfigError, match="another run is at work"):
        small_run(tiny_model, photos, tmp_path)
    small_run(tiny_model, photos, tmp_path, max_train_steps=1)


def test_dropout_rests_while_the_model_is_judged(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """The loss of a trained model with strong dropout is the same each time that it is asked for."""
    settings = {"use_lora": True, "lora_dropout": 0.9, "learning_rate": 0.05, "train_text_encoder": True}
    look = {"validation_data_dir": str(photos), "checkpointing_steps": 4}
    small_run(tiny_model, photos, tmp_path, **settings, **look)
    with ExitStack() as stack:
        p = prepare(
            configuration(tiny_model, photos, tmp_path, **settings, **look, resume_from_checkpoint="latest"), stack
        )
        assert p.held_out is not None
        assert p.held_out.loss(p.backend) == p.held_out.loss(p.backend)


def test_a_failure_while_the_model_is_judged_changes_nothing(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = {"use_lora": True, "lora_dropout": 0.9, "use_ema": True, "max_train_steps": 1}
    with ExitStack() as stack:
        p = prepare(configuration(tiny_model, photos, tmp_path, **settings), stack)
        backend: Any = p.backend
        batches, _ = p.batcher.update(0, 0)
        p.backend.train_step(batches, {"unet": 1e-2})
        (tmp_path / "before").mkdir()
        p.backend.export(tmp_path / "before", averaged=False)
        with pytest.raises(ZeroDivisionError), backend._evaluating():
            assert not any(network.training for network in backend._trained.values())
            raise ZeroDivisionError
        assert all(network.training for network in backend._trained.values())
        (tmp_path / "after").mkdir()
        p.backend.export(tmp_path / "after", averaged=False)
    before, after = (load_file(tmp_path / name / LORA_FILE) for name in ("before", "after"))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=f"{name}: still the average")


def test_results_are_as_readable_as_the_umask_says(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        run = small_run(tiny_model, photos, tmp_path, checkpointing_steps=2)
    finally:
        os.umask(before)
    weights = list(run.folder.rglob("*.safetensors"))
    assert len(weights) > 4
    assert {f.stat().st_mode & 0o777 for f in weights} == {0o644}
