"""What becomes of photographs in a run: their words, their shapes, their masks, several subjects, kept latents."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.backend import Batch
from dreamcore.config import TrainConfig, load_config
from dreamcore.errors import ConfigError
from dreamcore.loop import train
from dreamcore.plan import CLASS, INSTANCE
from dreamcore.setup import Prepared, prepare
from dreamcore.track import read_lines

from ..tables import CAPTIONS, as_parquet, as_saved
from ..tiny import draw_photos
from .runs import PRIOR, configuration, numbers, small_run

CONCEPTS = {"instance_data_dir": None, "instance_prompt": None}


def prepared(model: Path, photos: Path, output: Path, stack: ExitStack, **settings: Any) -> Prepared:
    return prepare(configuration(model, photos, output, **settings), stack)


def texts(run: Prepared, batch: Batch) -> list[str]:
    return [run.batcher.words.prompts[int(i)] for i in batch.prompt]


def test_every_photograph_gets_its_words(tiny_model: Path, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", count=3)
    (photos / "00.txt").write_text("{identifier} on grass, red, snow, blue")
    (photos / "01.txt").write_text("in snow")
    settings = {
        "use_captions": True,
        "caption_template": "a {class}, {caption}",
        "instance_prompt": "a photo of {identifier} {class}",
        "identifier": "sks",
        "class_word": "dog",
        "shuffle_tags": True,
        "keep_tags": 1,
        "max_train_steps": 60,
    }
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, **settings)
        seen: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
        for update in range(60):
            (row,) = run.batcher.plan.micro_batches(update)[0]
            seen[row.image] |= set(texts(run, run.batcher.micro_batches(update)[0]))
    assert seen[1] == {"a dog, in snow"}
    assert seen[2] == {"a photo of sks dog"}
    tags = {tuple(text.removeprefix("a dog, sks on grass, ").split(", ")) for text in seen[0]}
    assert len(tags) >= 4 and all(sorted(order) == ["blue", "red", "snow"] for order in tags)


def test_a_missing_caption_is_an_error_where_asked(tiny_model: Path, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", count=3)
    (photos / "00.txt").write_text("in snow")
    with pytest.raises(ConfigError, match=r"01\.png"):
        small_run(tiny_model, photos, tmp_path / "out", use_captions=True, missing_caption="error")


def test_a_place_without_words_is_an_error(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="asks for the identifier, and none is given"):
        small_run(tiny_model, photos, tmp_path / "out", instance_prompt="a photo of {identifier} dog")


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
            counts[row.concept, row.row] += 1
            assert (text, pytest.approx(float(weight) * 4)) == wanted[row.concept, row.row]
    assert counts == {(0, INSTANCE): 4, (1, INSTANCE): 12, (0, CLASS): 4}
    latents = {
        (row.concept, row.image): run.batcher.latents(row).mean for some in rows for row in some if row.row == INSTANCE
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


def test_kept_latents_are_used_again_and_never_wrongly(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamcore.latents import Latents

    encoded = []
    whole = Latents._planes
    monkeypatch.setattr(Latents, "_planes", lambda self, s: encoded.append(s.image) or whole(self, s))
    photos = draw_photos(tmp_path / "photos", count=3)
    keep: dict[str, Any] = {"latent_cache_dir": str(tmp_path / "kept"), "max_train_steps": 3}

    def images_encoded(name: str, folder: Path = photos, model: Path = tiny_model, **more: Any) -> int:
        encoded.clear()
        runs.append(small_run(model, folder, tmp_path / name, **{**keep, **more}))
        return len(encoded)

    runs: list[Any] = []
    assert [images_encoded("a"), images_encoded("b")] == [3, 0]
    assert numbers(runs[0]) == numbers(runs[1])
    renamed = Path(shutil.copytree(photos, tmp_path / "renamed"))
    for file in sorted(renamed.iterdir()):
        file.rename(file.with_name(f"other{file.name}"))
    assert images_encoded("c", renamed) == 0, "names do not matter, contents do"
    Image.open(photos / "01.png").rotate(90).save(photos / "01.png")
    assert images_encoded("d") == 1
    assert images_encoded("e", resolution=16) == 3
    assert images_encoded("f", random_flip=True, instance_variants=1, seed=5) <= 3
    other = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    _nudge(other / "vae" / "diffusion_pytorch_model.safetensors")
    assert images_encoded("g", model=other) == 3
    for file in (tmp_path / "kept").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    assert images_encoded("h") == 3, "what is damaged is made anew"
    assert numbers(runs[-1]) == numbers(runs[3])


def _nudge(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(file)
    tensors["encoder.conv_in.bias"] = tensors["encoder.conv_in.bias"] + np.float32(0.01)
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_share_is_held_out(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, validation_share=0.4)
        names = [photo.path.name for photo in run.inputs.subjects[0].images.photos]
        held = [photo.path.name for photo in run.inputs.held_out[0].images.photos]
    assert len(held) == round(0.4 * (len(names) + len(held))) and not set(names) & set(held)
    assert run.held_out is not None and len(run.held_out.latents) == len(held)
    with pytest.raises(ConfigError, match="validation_share: .* leaves none to train on"):
        small_run(tiny_model, photos, tmp_path / "b", validation_share=0.99)


def test_each_concept_has_held_out_photographs_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    folders = [draw_photos(tmp_path / name, count=2, seed=k) for k, name in enumerate(("one", "two", "held"))]
    concepts: list[dict[str, Any]] = [
        {"instance_data_dir": str(folders[0]), "instance_prompt": "a sks dog"},
        {"instance_data_dir": str(folders[1]), "instance_prompt": "a red toy", "validation_data_dir": str(folders[2])},
    ]
    with ExitStack() as stack:
        run = prepared(tiny_model, folders[0], tmp_path / "out", stack, **CONCEPTS, concepts=concepts)
        assert run.held_out is not None
        words = [run.batcher.words.prompts[number] for number in run.held_out.prompts]
    assert words == ["a red toy", "a red toy"]
    (part,) = run.inputs.held_out
    assert {photo.path.parent for photo in part.images.photos} == {folders[2]}
    with pytest.raises(ConfigError, match="validation_data_dir: given together with concepts; put it into each"):
        configuration(
            tiny_model, folders[0], tmp_path, **CONCEPTS, concepts=concepts, validation_data_dir=str(folders[2])
        )


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


def test_a_dataset_trains_as_its_photographs_do(tiny_model: Path, tmp_path: Path) -> None:
    """The same bytes in files, in a parquet file and in what `datasets` saves: the same run."""
    photos = draw_photos(tmp_path / "photos", count=4)
    for number, words in enumerate(CAPTIONS[:4]):
        if words:
            (photos / f"{number:02}.txt").write_text(words)
    plain = small_run(tiny_model, photos, tmp_path / "a", use_captions=True)
    for text in photos.glob("*.txt"):
        text.unlink()
    tables = as_parquet(photos, tmp_path / "parquet"), as_saved(photos, tmp_path / "saved")
    for name, table in zip("bc", tables, strict=True):
        settings = {"instance_data_dir": None, "dataset_name": str(table), "caption_column": "text"}
        run = small_run(tiny_model, photos, tmp_path / name, **settings)
        assert numbers(run) == numbers(plain)
        assert len(list((run.folder / "subject").glob("*.png"))) == 4, "for the report"
        again = load_config(TrainConfig, run.folder / "config.yaml", {"output_dir": str(tmp_path / f"{name}{name}")})
        assert numbers(train(again)) == numbers(plain)


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


def test_an_identifier_that_means_something_is_warned_of(
    tiny_model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run(tiny_model, photos, tmp_path / "a", **PRIOR, max_train_steps=1)
    assert "'sks' is a rifle to the model" in (tmp_path / "a" / "log.txt").read_text()
    rare = {**PRIOR, "instance_prompt": "a photo of qz dog", "max_train_steps": 1}
    small_run(tiny_model, photos, tmp_path / "b", **rare)
    assert "to the model" not in (tmp_path / "b" / "log.txt").read_text()


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
    rest = small_run(tiny_model, folders[0], tmp_path / "c", **settings, resume_from_checkpoint="latest")
    assert numbers(rest) == numbers(whole)


def test_two_runs_share_kept_latents(tmp_path: Path) -> None:
    """Processes that write and read the same entries at once see each whole or not at all."""
    code = """
import sys
from pathlib import Path
import numpy as np
from dreamcore.latentcache import LatentCache

cache = LatentCache(Path(sys.argv[1]), "encoder")
for turn in range(40):
    key = f"{turn % 4:064x}"
    wanted = np.full((9, 16, 16), turn % 4, np.float32)
    found = cache.get(key)
    assert found is None or np.array_equal(found, wanted)
    cache.put(key, wanted)
    assert np.array_equal(cache.get(key), wanted)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "kept")]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(run.communicate()[1], run.returncode) for run in runs] == [(b"", 0)] * 3
    names = [file.name for file in (tmp_path / "kept").rglob("*") if file.is_file()]
    assert sorted(names) == [f"{n:064x}.safetensors" for n in range(4)]
