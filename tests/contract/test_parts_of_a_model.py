"""Parts of a model in place of its own, and left out of the finished one; how its photographs are sized; its blocks.

An autoencoder of its own: `test_families.py`; a checkpoint's denoiser: `test_layouts.py`; from the Hub:
`tests/torch/test_cache_dir.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file, save_file

from dreamcore.backends.installed import installed_backends
from dreamcore.config import GenerateConfig
from dreamcore.data import Crop
from dreamcore.data.crop import to_planes
from dreamcore.errors import ConfigError
from dreamcore.io.names import LORA_FACTORS_FILE
from dreamcore.models.folder import ModelFolder
from dreamcore.training.training_data import bucket_choice

from ..support.runs import configuration, numbers, prepared, small_run
from ..support.tiny import draw_photos
from .test_families import RUNS

BACKEND = installed_backends()[0]
UNET = "unet/diffusion_pytorch_model.safetensors"
Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def parts(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model with another denoiser, and a tokenizer in which dogs and cats have exchanged their numbers."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("parts") / "other"))
    weights = load_file(folder / UNET)
    weights["conv_out.bias"] = weights["conv_out.bias"] + np.float32(0.5)
    save_file(weights, folder / UNET, metadata={"format": "pt"})
    file = folder / "tokenizer" / "vocab.json"
    words = json.loads(file.read_text(encoding="utf-8"))
    words["dog</w>"], words["cat</w>"] = words["cat</w>"], words["dog</w>"]
    file.write_text(json.dumps(words), encoding="utf-8")
    return folder


def test_words_are_those_of_the_tokenizer(tiny_model: Path, parts: Path, photos: Path, tmp_path: Path) -> None:
    words = {}
    for name, settings in {"own": {}, "other": {"tokenizer_name": str(parts / "tokenizer")}}.items():
        with ExitStack() as stack:
            backend = prepared(tiny_model, photos, tmp_path / name, stack, **settings).backend
            words[name] = [np.asarray(backend.embed([f"a photo of sks {animal}"])) for animal in ("dog", "cat")]
    np.testing.assert_array_equal(words["other"][0], words["own"][1])
    np.testing.assert_array_equal(words["other"][1], words["own"][0])
    assert not np.array_equal(words["own"][0], words["own"][1])


def test_a_run_of_parts(tiny_model: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off and gone on with it is the same run; its finished model holds them, without its text encoder."""
    monkeypatch.chdir(parts.parent)
    photos = draw_photos(tmp_path / "photos", count=2)  # 48×48 and 48×60
    settings: dict[str, Any] = {
        "tokenizer_name": parts.name,
        "pretrained_unet_name_or_path": parts.name,
        "train_text_encoder": True,
        "image_interpolation_mode": "nearest",
        "aspect_ratio_buckets": True,
        "bucket_shapes": "32,32;32,24;32,32",
        "skip_save_text_encoder": True,
        "validation_prompt": "a photo of sks dog",
        "final_validation_prompt": "a red toy in snow",
        "num_validation_images": 1,
        "validation_num_inference_steps": 1,
        "checkpointing_epochs": 1,
        "num_train_epochs": 2,
        "max_train_steps": None,
    }
    whole = small_run(tiny_model, photos, tmp_path / "whole", **settings)
    broken = Path(shutil.copytree(whole.folder, tmp_path / "broken"))
    shutil.rmtree(broken / "checkpoint-4")
    (broken / "model_index.json").unlink()
    resumed = small_run(tiny_model, photos, broken, **settings, resume_from_checkpoint="latest")
    assert numbers(resumed) == numbers(whole)
    last = [run.folder / "samples" / "step-000004-0.png" for run in (whole, resumed)]
    assert last[0].read_bytes() == last[1].read_bytes()

    folder = whole.folder
    assert (folder / "tokenizer" / "vocab.json").read_bytes() == (parts / "tokenizer" / "vocab.json").read_bytes()
    weights, other, own = (load_file(f / UNET)["conv_out.bias"] for f in (folder, parts, tiny_model))
    assert np.abs(weights - other).max() < 0.01 < np.abs(weights - own).min()
    assert not (folder / "text_encoder").exists()
    index = json.loads((folder / "model_index.json").read_text())
    assert index["text_encoder"] == [None, None] and index["tokenizer"] == ["transformers", "CLIPTokenizer"]
    encoder = shutil.copytree(tiny_model / "text_encoder", tmp_path / "encoder")  # Paddle writes a copy into it
    loads_beside(folder, Path(encoder))
    kept = yaml.safe_load((folder / "config.yaml").read_text())
    assert kept["tokenizer_name"] == kept["pretrained_unet_name_or_path"] == str(parts.resolve())


def loads_beside(folder: Path, encoder_folder: Path) -> None:
    """The framework's own pipeline has all that is missing once it is given a text encoder."""
    place, options = str(encoder_folder), dict[str, Any]()
    if BACKEND == "torch":
        from diffusers import StableDiffusionPipeline
        from transformers import CLIPTextModel
    elif BACKEND == "paddle":
        from ppdiffusers import StableDiffusionPipeline
        from ppdiffusers.transformers import CLIPTextModel

        options["from_diffusers"] = True
    else:  # mindone takes longer to import all of its tokenizers than the runs take; core writes the same index for it
        return
    encoder = CLIPTextModel.from_pretrained(place, **options)
    options |= {"safety_checker": None, "requires_safety_checker": False}
    pipeline: Any = StableDiffusionPipeline.from_pretrained(str(folder), text_encoder=encoder, **options)
    assert pipeline.text_encoder is encoder
    words = json.loads((folder / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    assert words["dog</w>"] in pipeline.tokenizer("dog")["input_ids"]


@pytest.mark.parametrize(
    ("setting", "place", "words"),
    [
        ("tokenizer_name", "nowhere", "no such folder"),
        ("tokenizer_name", "unet", r"no tokenizer \(vocab.json or tokenizer.json\) there"),
        ("pretrained_unet_name_or_path", "nowhere", "no such folder"),
        ("pretrained_unet_name_or_path", "vae", "holds a AutoencoderKL, and this model needs a UNet2DConditionModel"),
        ("pretrained_unet_name_or_path", "tokenizer", r"no UNet2DConditionModel \(config.json\) there"),
    ],
)
def test_a_part_that_is_none(setting: str, place: str, words: str, tiny_model: Path, photos: Path) -> None:
    config = configuration(tiny_model, photos, Path("out"), **{setting: str(tiny_model / place)})
    with pytest.raises(ConfigError, match=f"^{setting}: {tiny_model / place}:? ?.*{words}"):
        ModelFolder.of(config)


def test_a_run_is_gone_on_with_its_own_denoiser_alone(parts: Path, tiny_model: Path, photos: Path) -> None:
    """Another one makes another model, whose checkpoints do not fit; the same from a whole model's folder does."""

    def fingerprint(**settings: str) -> str:
        return ModelFolder.of(configuration(tiny_model, photos, Path("out"), **settings)).fingerprint

    setting = "pretrained_unet_name_or_path"
    assert fingerprint() == fingerprint(**{setting: str(tiny_model)})
    other = fingerprint(**{setting: str(parts)})
    assert other == fingerprint(**{setting: str(parts / "unet")}) == ModelFolder.open(str(parts)).fingerprint
    assert other != fingerprint()


def test_images_of_a_lora_run_are_made_with_its_parts(tmp_path: Path) -> None:
    """`generate --lora RUN` takes them from the run's configuration, as it takes the model."""
    said = {"pretrained_model_name_or_path": "a/model", "tokenizer_name": "words", "cache_dir": "/cache"}
    said |= {"pretrained_unet_name_or_path": "unet", "original_config": "sd.yaml", "sd_version": "1.5"}
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**said, "rank": 4}))
    config = GenerateConfig.from_mapping({"lora": str(tmp_path), "prompt": "a"})
    assert {name: getattr(config, name) for name in said} == said


# -- how photographs become latents


@pytest.mark.parametrize("mode", ["nearest", "bicubic"])
def test_photographs_are_scaled_as_asked(mode: str, tiny_model: Path, tmp_path: Path) -> None:
    """As Pillow scales them, to the latents that the model gives for that."""
    photos = draw_photos(tmp_path / "photos", count=1)
    scaled = Image.open(photos / "00.png").convert("RGB").resize((32, 32), getattr(Image.Resampling, mode.upper()))
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, image_interpolation_mode=mode)
        (sample,) = set(run.resolved.plan.images_used(0, 1))
        mean, std = run.backend.encode_images(to_planes(np.asarray(scaled))[None])
        found = run.batcher.latents(sample)
    np.testing.assert_array_equal(found.mean, mean[0])
    np.testing.assert_array_equal(found.std, std[0])


def test_the_buckets_are_those_named(tiny_model: Path, tmp_path: Path) -> None:
    """Each photograph in the one nearest to its own proportions."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, size in {"tall": (40, 80), "square": (50, 48), "wide": (90, 40)}.items():
        Image.new("RGB", size, "green").save(photos / f"{name}.png")
    settings = {"aspect_ratio_buckets": True, "bucket_shapes": "16,32; 32,16;24,24"}
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, **settings, max_train_steps=3)
        shapes = {}
        for sample in run.resolved.plan.images_used(0, 3):
            name = run.data.subjects[0].images.photos[sample.image].path.stem
            shapes[name] = run.batcher.latents(sample).mean.shape[1:]
    assert shapes == {"tall": (8, 4), "square": (6, 6), "wide": (4, 8)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("32", "expected heights and widths, as in 512,768;768,512"),
        ("32,32;", "expected heights and widths"),
        ("32,32,32", "expected heights and widths"),
        ("32,wide", "expected heights and widths"),
        ("32,32;32,30", "30 is not a multiple of 4, as this model needs"),
        ("32,0", "0 is not a multiple of 4"),
        ("-4,32", "-4 is not a multiple of 4"),
    ],
)
def test_buckets_that_are_none(text: str, words: str) -> None:
    settings = {"aspect_ratio_buckets": True, "bucket_shapes": text}
    config = configuration(Path("model"), Path("photos"), Path("out"), **settings)
    crop = Crop(32, 32, center_crop=True, random_flip=False)
    with pytest.raises(ConfigError, match=f"bucket_shapes: .*{words}"):
        bucket_choice(config, crop, 4)


# -- which blocks get factors


@pytest.mark.skipif("sd3" not in RUNS, reason="a family that this backend does not run")
def test_lora_in_some_blocks_alone(family_models: Models, photos: Path, tmp_path: Path) -> None:
    model, settings = family_models("sd3"), {"use_lora": True, "rank": 2, "max_train_steps": 1}
    with ExitStack() as stack:
        run = prepared(model, photos, tmp_path / "out", stack, **settings, lora_blocks=["1"])
        run.backend.save_state(tmp_path / "out")
    layers = {
        name.partition(".")[2].rpartition(".lora_")[0] for name in load_file(tmp_path / "out" / LORA_FACTORS_FILE)
    }
    weights = (tensor for file in (model / "transformer").glob("*.safetensors") for tensor in load_file(file))
    own = {name.removesuffix(".weight") for name in weights if name.endswith(".weight")}
    attention = tuple(f".attn.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0"))
    there = {name for name in own if name.startswith("transformer_blocks.1.")}
    assert layers <= there and {name for name in there if name.endswith(attention)} <= layers
    for blocks, words in (
        (["0", "7", "x"], "7, x: no such block of the transformer .*; there are transformer_blocks.0-1"),
        (["-1"], "-1:"),
    ):
        with pytest.raises(ConfigError, match=f"lora_blocks: {words}"), ExitStack() as stack:
            prepared(model, photos, tmp_path / "no", stack, **settings, lora_blocks=blocks)
