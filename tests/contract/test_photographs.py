"""What becomes of photographs in a run: their shapes, masks and colours, those held out, how often they come."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamcore.data.image_set import CLASS
from dreamcore.errors import ConfigError
from dreamcore.track import read_lines

from ..support.runs import PRIOR, prepared, small_run
from ..support.tiny import draw_photos


def test_buckets_leave_the_update_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    """Photographs of three shapes with class images: a micro-batch has one shape, and accumulation changes nothing."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate([(64, 32), (32, 64), (48, 48), (64, 34)]):
        pixels = rng.integers(0, 256, (size[1] // 2, size[0] // 2, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize(size).save(photos / f"{number}.png")
    settings = {"aspect_ratio_buckets": True, "bucket_step": 8, **PRIOR}
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, train_batch_size=4, **settings)
        batches, kinds = run.batcher.update(0)
    shapes = [batch.x.shape for batch in batches]
    assert sorted({shape[2:] for shape in shapes}) == [(6, 10), (8, 8), (10, 6)], shapes
    assert sum(shape[0] for shape in shapes) == 8 and kinds.tolist().count(CLASS) == 4
    assert sum(float(batch.weight.sum()) for batch in batches) == pytest.approx(2.0)
    at_once = small_run(tiny_model, photos, tmp_path / "a", train_batch_size=4, **settings)
    in_parts = small_run(
        tiny_model, photos, tmp_path / "b", train_batch_size=1, gradient_accumulation_steps=4, **settings
    )
    for one, other in zip(at_once.metrics, in_parts.metrics, strict=True):
        for name in ("loss", "loss_instance", "loss_prior", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-5), name


def masked(photos: Path, folder: Path) -> Path:
    """Photographs whose masks show a corner."""
    shutil.copytree(photos, folder)
    for file in sorted(folder.iterdir()):
        size = Image.open(file).size
        mask = Image.new("L", size, 0)
        mask.paste(255, (0, 0, size[0] // 3, size[1] // 3))
        mask.save(folder / f"{file.stem}-mask.png")
    return folder


def test_a_mask_weighs_the_loss_and_keeps_its_size(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    folder = masked(photos, tmp_path / "masked")
    plain = small_run(tiny_model, photos, tmp_path / "a", **PRIOR)
    alike = small_run(tiny_model, folder, tmp_path / "b", masked_loss=True, outside_weight=1.0, **PRIOR)
    for one, other in zip(plain.metrics, alike.metrics, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6), "all weights are 1"
    with ExitStack() as stack:
        run = prepared(tiny_model, folder, tmp_path / "c", stack, masked_loss=True, outside_weight=0.25, **PRIOR)
        (batch,) = run.batcher.micro_batches(0)
    assert batch.mask is not None and batch.mask.shape == (2, 1, 8, 8)
    np.testing.assert_allclose(batch.mask.mean((1, 2, 3)), 1, rtol=1e-6)
    assert batch.mask[0].max() / batch.mask[0].min() == pytest.approx(4, rel=1e-6)
    np.testing.assert_array_equal(batch.mask[1], 1)


def test_the_crop_keeps_the_subject(tiny_model: Path, tmp_path: Path) -> None:
    """A wide photograph whose mask lies at its right end; and the record says where the crop was."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((96, 32), 60).convert("RGB").save(photos / "a.png")
    mask = Image.new("L", (96, 32), 0)
    mask.paste(255, (84, 4, 96, 20))
    mask.save(photos / "a-mask.png")
    for subject_crop, left in ((True, 64), (None, 32)):
        with ExitStack() as stack:
            output = tmp_path / f"out{left}"
            run = prepared(
                tiny_model, photos, output, stack, subject_crop=subject_crop, masked_loss=True, random_flip=True
            )
            rows = [run.batcher.plan.micro_batches(update)[0][0] for update in range(20)]
            records = [run.batcher.latents.record(row) for row in rows]
        assert {record.original for record in records} == {(32, 96)}
        assert {record.target for record in records} == {(32, 32)}
        corners = {record.mirrored: record.corner for record in records}
        assert corners == {False: (0, left), True: (0, 96 - 32 - left)}


def test_masks_that_are_not_there_are_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", count=2)
    with pytest.raises(ConfigError, match="masked_loss: no image of .*NAME-mask.png"):
        small_run(tiny_model, photos, tmp_path / "out", masked_loss=True)


def test_the_colour_behind_transparent_photographs(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(folder / "a.png")
    keep = {"latent_cache_dir": str(tmp_path / "kept"), "max_train_steps": 1}
    means = []
    for number, colour in enumerate((None, "white", "#204060", "#204060")):
        with ExitStack() as stack:
            run = prepared(tiny_model, folder, tmp_path / f"out{number}", stack, alpha_color=colour, **keep)
            (sample,) = run.batcher.plan.micro_batches(0)[0]
            means.append(run.batcher.latents(sample).mean)
            expected = np.array([(0xFF, 0xFF, 0xFF) if number < 2 else (0x20, 0x40, 0x60)], np.float32)
            pixels = np.broadcast_to((expected / 127.5 - 1)[..., None, None], (1, 3, 32, 32))
            np.testing.assert_allclose(
                means[-1], run.backend.encode_images(np.ascontiguousarray(pixels))[0][0], atol=1e-6
            )
    assert (means[0] == means[1]).all() and (means[2] == means[3]).all() and (means[1] != means[2]).any()
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 2, "one for each colour"


def test_a_share_is_held_out(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, validation_share=0.4)
        names = [photo.path.name for photo in run.data.subjects[0].images.photos]
        held = [photo.path.name for photo in run.data.held_out[0].images.photos]
    assert len(held) == round(0.4 * (len(names) + len(held))) and not set(names) & set(held)
    assert run.held_out is not None and len(run.held_out.latents) == len(held)
    with pytest.raises(ConfigError, match="validation_share: .* leaves none to train on"):
        small_run(tiny_model, photos, tmp_path / "b", validation_share=0.99)


def test_the_report_says_where_the_held_out_loss_turns(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    steps = {"validation_steps": 1, "checkpointing_steps": 3, "max_train_steps": 9, "learning_rate": 3e-3}
    run = small_run(tiny_model, photos, tmp_path / "out", validation_share=0.2, **steps)
    losses = {r["step"]: r["validation_loss"] for r in read_lines(run.folder / "validation.jsonl")}
    assert sorted(losses) == list(range(10))
    turn = min(losses, key=lambda step: (losses[step], step))
    nearest = min((3, 6, 9), key=lambda update: abs(update - turn))
    page = (run.folder / "report.html").read_text("utf-8")
    assert f"at {turn}" in page and f"Nearest checkpoint to the lowest point: checkpoint-{nearest}." in page
    assert ("It is lowest at the end, and has not turned." in page) == (turn == 9)


def test_sub_folders_are_taken_where_asked(tiny_model: Path, tmp_path: Path) -> None:
    draw_photos(tmp_path / "photos" / "inner", count=2)
    with pytest.raises(ConfigError, match="holds no images"):
        small_run(tiny_model, tmp_path / "photos", tmp_path / "a")
    assert small_run(tiny_model, tmp_path / "photos", tmp_path / "b", sub_folders=True).updates == 4


def test_repeats_lengthen_an_epoch(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    count = len(list(photos.iterdir()))
    settings = {"max_train_steps": None, "num_train_epochs": 1, "train_batch_size": 5}
    run = small_run(tiny_model, photos, tmp_path / "a", train_data_repeats=2, **settings)
    assert run.updates == -(-2 * count // 5)
