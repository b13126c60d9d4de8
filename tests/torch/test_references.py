"""Reference images of Flux Kontext and Flux.2 beside diffusers' own modules in training, and its pipelines' images."""

from __future__ import annotations

import inspect
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.backends.lora import initial_down
from dreamcore.data import Crop, ImageFolder
from dreamcore.diffusion.randomness import Purpose, generator, posterior_of_reference
from dreamcore.errors import ConfigError
from dreamcore.training.references import require_torch
from dreamcore.training.sample_plan import Plan

from ..support import images as pictures
from ..support import needs
from ..support.images import distance
from ..support.runs import small_run
from ..support.tables import as_parquet
from ..support.tiny import draw_photos
from ..support.tiny_flux_2 import WRITERS
from .test_flux_2 import pipeline

pytestmark = needs.torch

UPDATES, SEED, SIZE = 10, 11, 32
PROMPTS = ["a photo of sks dog", "a photo of dog"]
LORA = {"use_lora": True, "rank": 4, "learning_rate": 2e-3}
PRIOR = {"with_prior_preservation": True, "class_prompt": PROMPTS[1], "prior_loss_weight": 0.7, "num_class_images": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "kontext": ("kontext", {"guidance_scale": 1.0}),
    "kontext lora": ("kontext", LORA | {"lora_layers": ["attn.to_q", "attn.add_k_proj", "attn.to_out.0"]}),
    "klein lora": ("klein", LORA | {"max_sequence_length": 40}),
    "dev": ("dev", {"max_sequence_length": 40, "guidance_scale": 2.0}),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, each with a reference beside it."""
    folder = draw_photos(tmp_path_factory.mktemp("pairs"), count=5, size=48)
    others = draw_photos(tmp_path_factory.mktemp("others"), count=5, size=48, seed=9)
    for photo, other in zip(sorted(folder.glob("*.png")), sorted(others.glob("*.png")), strict=True):
        other.rename(folder / f"{photo.stem}-cond.png")
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("class"), count=3, size=36, seed=5)


def photographs(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.png")) if not path.stem.endswith("-cond")]


def beside(photo: Path) -> Path:
    return photo.with_name(f"{photo.stem}-cond.png")


@pytest.mark.parametrize("case", CASES)
def test_ten_updates_are_a_plain_loops(case: str, pairs: Path, classes: Path, tmp_path: Path) -> None:
    """With class images, which are learned from words alone, in micro-batches of their own."""
    import dreamcore

    from ..support import loops_flux_2 as loops
    from ..support.torch_loops import Row

    family, given = CASES[case]
    model = WRITERS[family](tmp_path / "model")
    settings = {"learning_rate": 2e-4, "train_batch_size": 2, "seed": SEED, **PRIOR, **given}
    run = dreamcore.train(
        pretrained_model_name_or_path=str(model),
        instance_data_dir=str(pairs),
        instance_prompt=PROMPTS[0],
        class_data_dir=str(classes),
        center_crop=True,
        output_dir=str(tmp_path / "run"),
        max_train_steps=UPDATES,
        resolution=SIZE,
        report_to="none",
        backend="torch",
        device="cpu",
        **settings,
    )
    kinds: dict[str, Any] = {"kontext": loops.Kontext, "klein": loops.Klein, "dev": loops.Dev}
    loop = kinds[family](model, SIZE, settings, partial(initial_down, SEED))

    def row(sample: Any) -> Row:
        draw = {p: generator(SEED, p, sample.place, sample.kind) for p in Purpose}
        picture = photographs(classes if sample.kind else pairs)[sample.image]
        theirs = posterior_of_reference(SEED, sample.place, sample.kind)
        return Row(
            picture=picture,
            prompt=PROMPTS[sample.kind],
            posterior=draw[Purpose.POSTERIOR].standard_normal(loop.shape, np.float32),
            noise=draw[Purpose.NOISE].standard_normal(loop.shape, np.float32),
            timestep=loop.timestep(draw[Purpose.TIMESTEP]),
            reference=None if sample.kind else beside(picture),
            reference_posterior=theirs.standard_normal(loop.shape, np.float32),
        )

    plan = Plan.single(SEED, instances=5, classes=3, batch_size=2)
    wanted = [loop.update([row(s) for s in plan.micro_batches(u)[0]]) for u in range(UPDATES)]
    for name in wanted[0]:
        measured = [record[name] for record in run.metrics]
        np.testing.assert_allclose(measured, [w[name] for w in wanted], rtol=1e-5, err_msg=f"{case}: {name}")


@pytest.mark.parametrize("family", ["kontext", "klein", "dev"])
def test_images_are_the_pipelines(family: str, pairs: Path, tmp_path: Path) -> None:
    """Of a reference of the images' size, which their own pipelines leave as it is; Flux.2's takes none below 64."""
    import diffusers
    import torch

    size = 64
    model = WRITERS[family](tmp_path / "model")
    reference = tmp_path / "reference.png"
    with Image.open(beside(photographs(pairs)[0])) as image:
        image.convert("RGB").resize((size, size)).save(reference)
    sides = {"height": size, "width": size}
    mine = pictures.ours(model, tmp_path / "mine", image=str(reference), **sides)
    assert distance(mine, pictures.ours(model, tmp_path / "words", **sides)) > 2, "the reference is seen"
    loaded = pipeline(model)
    accepted = inspect.signature(type(loaded).__call__).parameters
    more = {"max_area": size**2, "_auto_resize": False} if "max_area" in accepted else {}
    with Image.open(reference) as image:
        more["image"] = image.convert("RGB")
        theirs = pictures.theirs(diffusers, loaded, model, torch.from_numpy, size, **more)
    assert distance(mine, theirs) <= 1


def test_a_reference_is_cut_as_its_photograph(tmp_path: Path) -> None:
    """A copy of the photograph at twice its size shows the same, wherever it is cropped and mirrored."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(256, size=(40, 60, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    picture.resize((120, 80), Image.Resampling.NEAREST).save(tmp_path / "a-cond.png")
    folder = ImageFolder.open(tmp_path, setting="instance_data_dir", references=True)
    assert [photo.path.name for photo in folder.photos] == ["a.png"]
    crop = Crop(20, 20, center_crop=False, random_flip=True, interpolation="box")
    seen = set()
    for seed in range(8):
        sample = folder.sample(0, crop, np.random.default_rng(seed))
        assert sample.reference is not None
        assert np.abs(sample.reference - sample.pixels).max() <= 4 / 255
        seen.add((sample.record.corner, sample.record.mirrored))
    assert len(seen) > 2
    plain = ImageFolder.open(tmp_path, setting="instance_data_dir")
    assert "1 reference images (NAME-cond) are not used" in plain.notes
    assert plain.fingerprint != folder.fingerprint


def test_latents_of_references_are_kept_by_their_files(pairs: Path, tmp_path: Path) -> None:
    """A second run encodes nothing; another reference beside one photograph is encoded, and that pair alone."""
    model, folder = WRITERS["kontext"](tmp_path / "model"), tmp_path / "photos"
    shutil.copytree(pairs, folder)
    settings = {"use_lora": True, "latent_cache_dir": str(tmp_path / "cache"), "center_crop": True, "resolution": SIZE}

    def files(name: str, **more: Any) -> int:
        small_run(model, folder, tmp_path / name, max_train_steps=5, train_batch_size=1, **settings, **more)
        return len(list((tmp_path / "cache").rglob("*.safetensors")))

    assert files("one") == files("again") == 5
    photo = photographs(folder)[0]
    shutil.copy(photo, beside(photo))
    assert files("other") == 6


def test_what_cannot_be_used_is_refused_by_name(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    model, folder = WRITERS["kontext"](tmp_path / "model"), tmp_path / "photos"
    shutil.copytree(pairs, folder)
    photo = photographs(folder)[1]

    def refused(words: str, family: Path = model, **settings: Any) -> None:
        with pytest.raises(ConfigError, match=words):
            small_run(family, folder, tmp_path / "run", **settings)

    with pytest.raises(ConfigError, match="photos: reference images on mindspore are not tested; use --backend torch"):
        require_torch("mindspore", "photos")
    Image.new("RGB", (48, 20)).save(beside(photo))
    refused(rf"{beside(photo).name}: a reference image of 48×20 for a photograph of .* proportions")
    beside(photo).unlink()
    refused(rf"no reference image for {photo.name}, while others have one")
    for one in photographs(folder):
        beside(one).unlink(missing_ok=True)
    held = tmp_path / "held"
    shutil.copytree(pairs, held)
    refused(r"held: its photographs have reference images .* train have none", validation_data_dir=str(held))
    table = {"dataset_name": str(as_parquet(folder, tmp_path / "table")), "instance_data_dir": None}
    refused(r"cond_image_column: .* has no column 'before'", cond_image_column="before", **table)
    refused("cond_image_column='image': acts only on models that see", tiny_model, cond_image_column="image", **table)
    with pytest.raises(ConfigError, match="image='.*': acts only on models that upscale .* or see reference"):
        pictures.ours(tiny_model, tmp_path / "mine", image=str(photo))


def test_a_run_on_a_tables_pairs_with_validation(pairs: Path, tmp_path: Path) -> None:
    """As diffusers' script is called; images of a reference are other ones than those of words alone."""
    model, photos = WRITERS["kontext"](tmp_path / "model"), tmp_path / "photos"
    photos.mkdir()
    for photo in photographs(pairs):
        shutil.copy(photo, photos)
    settings: dict[str, Any] = {
        "dataset_name": str(as_parquet(photos, tmp_path / "table")),
        "instance_data_dir": None,
        "cond_image_column": "image",
        "use_lora": True,
        "validation_share": 0.2,
        "validation_prompt": "a dog",
        "num_validation_images": 2,
        "validation_num_inference_steps": 2,
        "max_train_steps": 1,
        "resolution": SIZE,
    }
    words = small_run(model, photos, tmp_path / "words", **settings)
    image = str(beside(photographs(pairs)[0]))
    shown = small_run(model, photos, tmp_path / "shown", validation_images=[image], **settings)
    one, other = (
        np.stack([np.asarray(Image.open(file)) for file in sorted((run.folder / "samples").glob("step-000001-*.png"))])
        for run in (words, shown)
    )
    assert len(one) == len(other) == 2
    assert distance(one.astype(int), other.astype(int)) > 2
    measured = [r["validation_loss"] for r in words.metrics if "validation_loss" in r]
    assert all(np.isfinite(measured))
