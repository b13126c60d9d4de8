"""DeepFloyd IF on every backend: runs, images, and what is refused in words.

Losses are compared in `tests/torch/test_family_parity.py` and `tests/crossing`, images in
`tests/torch/test_deepfloyd_if.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.protocol import SampleRequest
from dreamcore.backends.registry import load_backend
from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder

from ..support.runs import PRIOR, configuration, numbers, small_run

BACKEND = installed_backends()[0]
SIZE = 16
LOOKING = {"validation_prompt": "a dog", "validation_num_inference_steps": 2, "validation_scheduler": "ddpm"}
Models = Callable[[str], Path]


@pytest.fixture
def low(tmp_path: Path) -> list[str]:
    """Two images of 8 × 8."""
    draw, files = np.random.default_rng(0), [tmp_path / f"low{k}.png" for k in range(2)]
    for file in files:
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    return [str(file) for file in files]


@pytest.mark.skipif(BACKEND == "mindspore", reason="slow on a CPU; tests/crossing has a run of each stage")
@pytest.mark.parametrize("stage", ["if1", "if2"])
def test_a_run_broken_off_and_gone_on_with(
    stage: str, family_models: Models, photos: Path, tmp_path: Path, low: list[str]
) -> None:
    """Validation, class images, checkpoints, export: the same run as without the break; the finished model's scheduler
    does without the variance, for which nothing was trained."""
    settings: dict[str, Any] = LOOKING | {"resolution": SIZE, "checkpointing_steps": 2, "max_train_steps": 3}
    if stage == "if1":
        settings |= PRIOR | {"num_validation_images": 2, "use_ema": True, "class_data_dir": str(tmp_path / "classes")}
    else:
        settings |= {"validation_images": low, "use_lora": True, "rank": 2}
    whole = small_run(family_models(stage), photos, tmp_path / "whole", **settings)
    broken = tmp_path / "broken"
    shutil.copytree(whole.folder, broken)
    shutil.rmtree(broken / "checkpoint-3")
    for name in ("model_index.json", "pytorch_lora_weights.safetensors"):
        (broken / name).unlink(missing_ok=True)
    resumed = small_run(family_models(stage), photos, broken, **settings, resume_from_checkpoint="latest")
    assert numbers(resumed) == numbers(whole)
    assert len(list((whole.folder / "samples").glob("step-000003-*.png"))) == 2
    if stage == "if2":
        factors = load_file(whole.folder / "pytorch_lora_weights.safetensors")
        assert {"add_k_proj", "to_q"} <= {name.split(".")[-4] for name in factors}
        return
    finished = ModelFolder.open(str(whole.folder))
    assert finished.config("scheduler")["variance_type"] == "fixed_small"
    assert finished.config("scheduler")["thresholding"] is True
    assert finished.index == json.loads((family_models(stage) / "model_index.json").read_text())


@pytest.mark.parametrize("stage", ["if1", "if2"])
def test_images(stage: str, family_models: Models) -> None:
    """Pixels are their own latents; an image depends on its seed, and not on its neighbours; the variance that the
    network answers with shows where it is asked for, and so do the image that stage 2 starts from and its noise."""
    model = ModelFolder.open(str(family_models(stage)))
    backend: Any = load_backend(BACKEND, model, configuration(model.path, Path("photos"), Path("out"), device="cpu"))
    draw = np.random.default_rng(1)
    noise = draw.standard_normal((2, 3, SIZE, SIZE), np.float32)
    images = draw.uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32) if stage == "if2" else None
    request = SampleRequest(["a dog", "a cat"], noise, [4, 5], 3, 5.0, "ddpm", images=images)

    def pictures(**changes: Any) -> np.ndarray:
        made: np.ndarray = backend.sample(replace(request, **changes))
        return made.astype(int)

    mean, std = backend.encode_images(np.clip(noise, -1, 1))
    np.testing.assert_array_equal(mean, np.clip(noise, -1, 1))
    assert not std.any()
    together = pictures()
    assert together.shape == (2, SIZE, SIZE, 3)
    second = {"prompts": ["a cat"], "noise": noise[1:], "seeds": [5], "images": None if images is None else images[1:]}
    assert np.abs(pictures(**second)[0] - together[1]).max() <= 1
    changes: list[dict[str, Any]] = [{"learned_variance": False}, {"seeds": [6, 7]}]
    if images is not None:
        changes += [{"images": -images}, {"noise_level": 900}]
    for change in changes if BACKEND != "mindspore" else changes[::3]:
        assert np.abs(pictures(**change) - together).max() > 8, change


@pytest.mark.parametrize(
    ("stage", "settings", "words"),
    [
        ("if1", {"resolution": 17}, "resolution: 17 is not a multiple of 2, as this model needs; 16 would be"),
        ("if1", {"train_text_encoder": True}, "train_text_encoder=True: acts only on models with another text encoder"),
        ("if1", {"max_sequence_length": 99}, "max_sequence_length=99: acts only on models that read long"),
        ("if1", {"class_labels_conditioning": "timesteps"}, "class_labels_conditioning=.*: acts only on .*stage 2"),
        ("if1", {"validation_images": 1} | LOOKING, "validation_images=.*: acts only on models that upscale"),
        ("if2", LOOKING, "validation_prompt: DeepFloyd IF stage 2 makes an image of a smaller one; name some with"),
        (
            "if2",
            {"validation_images": 2} | LOOKING,
            "validation_images: .*png is 8×9, and .*png is 8×8; give images",
        ),
        ("if2", PRIOR, "num_class_images: 3, and .* holds 0 photographs; DeepFloyd IF stage 2 makes none of words"),
    ],
)
def test_what_is_refused(
    stage: str, settings: dict[str, Any], words: str, family_models: Models, photos: Path, tmp_path: Path, low: Any
) -> None:
    """By name, before a model is loaded and anything written."""
    if count := settings.get("validation_images"):
        Image.new("RGB", (8, 9)).save(low[1])
        settings = settings | {"validation_images": low[:count]}
    with pytest.raises(ConfigError, match=words):
        small_run(family_models(stage), photos, tmp_path / "out", **{"resolution": SIZE} | settings)
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_stage_2_needs_an_image(family_models: Models, tmp_path: Path) -> None:
    given = {"pretrained_model_name_or_path": str(family_models("if2")), "prompt": "a dog"}
    with pytest.raises(ConfigError, match="image: needed: DeepFloyd IF stage 2 makes an image of a smaller one"):
        generate(GenerateConfig.from_mapping(given | {"output_dir": str(tmp_path / "out")}))


def test_words_of_another_width_are_refused(family_models: Models, tmp_path: Path) -> None:
    model = Path(shutil.copytree(family_models("if1"), tmp_path / "model"))
    file = model / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"encoder_hid_dim": 64}))
    with pytest.raises(ConfigError, match="d_model: 48, while the denoiser takes words of width 64 .*encoder_hid_dim"):
        ModelFolder.open(str(model))
