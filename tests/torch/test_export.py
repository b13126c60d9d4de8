"""What a run of Stable Diffusion leaves, file by file; the images of every family: test_family_export."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError
from dreamcore.formats.weights import write_safetensors
from dreamcore.io.names import LORA_FILE
from dreamcore.training.loop import Run

from ..support import needs
from ..support.images import distance, ours
from ..support.runs import numbers, small_run
from ..support.tiny import write_tiny_model
from .test_family_export import pipeline, theirs

pytestmark = needs.torch


@pytest.fixture(scope="module")
def full(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("full")
    return small_run(tiny_model, photos, folder, train_text_encoder=True, learning_rate=1e-3, checkpointing_steps=2)


@pytest.fixture(scope="module")
def lora(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Alpha is not the rank, and the factors are large enough to show."""
    folder = tmp_path_factory.mktemp("lora")
    settings = {"use_lora": True, "rank": 3, "lora_alpha": 12, "train_text_encoder": True, "learning_rate": 0.05}
    return small_run(tiny_model, photos, folder, **settings, checkpointing_steps=2)


def test_the_scale_of_a_lora(lora: Run, tiny_model: Path, tmp_path: Path) -> None:
    none = ours(tiny_model, tmp_path / "none", lora=str(lora.folder), lora_scale=0.0)
    assert distance(none, ours(tiny_model, tmp_path / "base")) <= 1


def kohyas(lora: Run) -> dict[str, np.ndarray]:
    """A run's factors under the names that Kohya's scripts give, with an alpha that halves them again."""
    from safetensors.numpy import load_file

    found = {}
    for name, array in load_file(lora.folder / LORA_FILE).items():
        component, layer = name.split(".", 1)
        layer, kind = layer.rsplit(".lora_linear_layer." if component == "text_encoder" else ".lora.", 1)
        stem = f"lora_{'te' if component == 'text_encoder' else component}_{layer.replace('.', '_')}"
        found[f"{stem}.lora_{kind}"] = array * (2 if kind.startswith("up") else 1)
        found[f"{stem}.alpha"] = np.array(3 / 2, np.float32)
    return found


def test_a_lora_file_in_kohyas_names(lora: Run, tiny_model: Path, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "kohya.safetensors", kohyas(lora))
    theirs = ours(tiny_model, tmp_path / "theirs", lora=str(tmp_path / "kohya.safetensors"))
    mine = ours(tiny_model, tmp_path / "mine", lora=str(lora.folder))
    assert distance(mine, theirs) <= 1
    assert distance(mine, ours(tiny_model, tmp_path / "base")) > 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name: name.replace("attentions_0", "attentions_7"), "attentions.7.*: this model has no such layer"),
        (lambda name: name.replace("lora_te_", "lora_te2_"), r"text_encoder_2\..*: this model has no such layer"),
        (lambda name: name.replace("lora_unet_", "lora_other_"), "lora_.*: a name of no layer that is known here"),
        (lambda name: None if name.endswith("to_q.lora_up.weight") else name, "to_q: has only alpha, down of its"),
        (lambda name: name.replace("to_q.lora_", "to_q.other_"), r"to_q\.other_.*: not a name that a trainer known"),
    ],
)
def test_kohyas_names_that_the_model_lacks(
    change: Callable[[str], str | None], words: str, lora: Run, tiny_model: Path, tmp_path: Path
) -> None:
    changed = {new: array for name, array in kohyas(lora).items() if (new := change(name))}
    write_safetensors(tmp_path / "kohya.safetensors", changed)
    with pytest.raises(ConfigError, match=rf"lora: .*kohya\.safetensors: .*{words}"):
        ours(tiny_model, tmp_path / "out", lora=str(tmp_path / "kohya.safetensors"))


def test_a_checkpoint_is_loaded_as_it_lies(full: Run, lora: Run, tiny_model: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(full.folder, subfolder="checkpoint-2/unet")
    last = UNet2DConditionModel.from_pretrained(full.folder, subfolder="checkpoint-4/unet")
    final = UNet2DConditionModel.from_pretrained(full.folder, subfolder="unet")
    name = "conv_in.weight"
    assert not np.array_equal(unet.state_dict()[name], last.state_dict()[name])
    np.testing.assert_array_equal(last.state_dict()[name], final.state_dict()[name])
    pipeline(tiny_model).load_lora_weights(lora.folder / "checkpoint-2")


def test_the_prefix_of_clip_is_published(full: Run) -> None:
    from safetensors.numpy import load_file

    assert all(name.startswith("text_model.") for name in load_file(full.folder / "text_encoder" / "model.safetensors"))


def test_safety_checker_and_feature_extractor_go_along(photos: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    model = write_tiny_model(tmp_path / "model", safety_checker=True)
    run = small_run(model, photos, tmp_path / "out", max_train_steps=1)
    loaded = StableDiffusionPipeline.from_pretrained(run.folder)
    assert loaded.safety_checker is not None
    assert loaded.feature_extractor is not None


def test_bin_weights_are_read_safely_and_written_as_safetensors(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for folder, old, new in (
        ("unet", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("vae", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("text_encoder", "model.safetensors", "pytorch_model.bin"),
    ):
        torch.save(load_file(model / folder / old), model / folder / new)
        (model / folder / old).unlink()
    run = small_run(model, photos, tmp_path / "a")
    assert numbers(run) == numbers(small_run(tiny_model, photos, tmp_path / "b"))
    assert not list(run.folder.rglob("*.bin"))
    assert distance(ours(run.folder, tmp_path / "mine"), theirs(pipeline(run.folder), run.folder)) <= 1


def test_a_hostile_bin_file_runs_nothing(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    import pickle  # noqa: TID251  (to write what must not run)

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    bait = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (bait,)

    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"conv_in.weight": Hostile()}))
    with pytest.raises(ConfigError, match=r"diffusion_pytorch_model\.bin: cannot be loaded"):
        small_run(model, photos, tmp_path / "out")
    assert not bait.exists()


def test_words_and_unwanted_words_matter(tiny_model: Path, tmp_path: Path) -> None:
    base = ours(tiny_model, tmp_path / "a")
    assert distance(base, ours(tiny_model, tmp_path / "b", prompt="a red car in snow")) > 8
    assert distance(base, ours(tiny_model, tmp_path / "c", negative_prompt="a blue teapot on grass")) > 8


def test_sizes_sheets_and_files_of_prompts(tiny_model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a dog\n\n  a cat in snow \n")
    config = GenerateConfig.from_mapping(
        {
            "pretrained_model_name_or_path": str(tiny_model),
            "prompt_file": str(prompts),
            "num_images": 3,
            "num_inference_steps": 2,
            "height": 32,
            "width": 48,
            "output_dir": str(tmp_path / "out"),
        }
    )
    files = generate(config)
    assert [f.name for f in files] == [f"{k:05}.png" for k in range(6)] + ["sheet.png"]
    assert Image.open(files[0]).size == (48, 32)
    assert Image.open(files[-1]).size == (3 * 48 + 2 * 4, 2 * 32 + 4), "a row for each prompt"
