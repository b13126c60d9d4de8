"""What a run leaves is loaded by diffusers' own pipeline and loaders, and gives the pictures of our own sampler."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreamcore.config import GenerateConfig
from dreamcore.generation import generate
from dreamcore.loop import Run
from dreamcore.pictures import first_noise

from .. import needs
from ..contract.runs import numbers, small_run
from ..tiny import write_tiny_model

pytestmark = needs.torch

PROMPT, SEEDS, STEPS, GUIDANCE = "a photo of sks dog", [3, 4], 6, 4.0


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


def ours(model: Path, output: Path, **settings: Any) -> NDArray[np.uint8]:
    config = {
        "pretrained_model_name_or_path": str(model),
        "prompt": PROMPT,
        "num_images": len(SEEDS),
        "seed": SEEDS[0],
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "output_dir": str(output),
        "contact_sheet": False,
    }
    return pictures(generate(GenerateConfig.from_mapping(config | settings)))


def pictures(files: list[Path]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(file)) for file in files])


def theirs(pipeline: Any) -> NDArray[np.uint8]:
    import torch
    from diffusers import DDIMScheduler

    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        [PROMPT] * len(SEEDS),
        latents=torch.from_numpy(first_noise(SEEDS, (4, 8, 8))),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
    ).images
    return np.round(made * 255).astype(np.uint8)


def pipeline(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


def assert_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    """Equal to within one grey level: the two add the same numbers up in another order."""
    assert one.shape == other.shape
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def assert_different(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    assert np.abs(one.astype(int) - other.astype(int)).max() > 8


def test_a_full_run_in_diffusers_pipeline(full: Run, tiny_model: Path, tmp_path: Path) -> None:
    mine = ours(full.folder, tmp_path / "mine")
    assert_same(mine, theirs(pipeline(full.folder)))
    assert_different(mine, ours(tiny_model, tmp_path / "base"))


def test_a_lora_file_in_diffusers_loader(lora: Run, tiny_model: Path, tmp_path: Path) -> None:
    mine = ours(tiny_model, tmp_path / "mine", lora=str(lora.folder))
    loaded = pipeline(tiny_model)
    loaded.load_lora_weights(lora.folder)
    assert_same(mine, theirs(loaded))
    assert_different(mine, ours(tiny_model, tmp_path / "base"))


def test_each_part_of_the_lora_file_is_loaded(lora: Run, tiny_model: Path) -> None:
    """Every factor reaches a layer of diffusers' pipeline, with alpha folded in: the same product, scale one."""
    from safetensors.numpy import load_file

    loaded = pipeline(tiny_model)
    loaded.load_lora_weights(lora.folder, adapter_name="a")
    raw = load_file(lora.folder / "checkpoint-4" / "lora_factors.safetensors")
    found = 0
    for component in ("unet", "text_encoder"):
        for name, module in getattr(loaded, component).named_modules():
            if hasattr(module, "lora_A") and "a" in module.lora_A:
                prefix = "text_model." if component == "text_encoder" else ""
                key = f"{component}.{prefix}{name}"
                product = raw[f"{key}.lora_B.weight"] @ raw[f"{key}.lora_A.weight"] * (12 / 3)
                np.testing.assert_allclose(
                    module.get_delta_weight("a").detach().numpy(), product.reshape(module.weight.shape), atol=1e-6
                )
                found += 1
    assert 2 * found == len(raw)


def test_the_scale_of_a_lora(lora: Run, tiny_model: Path, tmp_path: Path) -> None:
    none = ours(tiny_model, tmp_path / "none", lora=str(lora.folder), lora_scale=0.0)
    assert_same(none, ours(tiny_model, tmp_path / "base"))


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
    assert_same(ours(run.folder, tmp_path / "mine"), theirs(pipeline(run.folder)))


def test_a_hostile_bin_file_runs_nothing(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    import pickle  # noqa: TID251  (to write what must not run)

    from dreamcore.errors import ConfigError

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
    assert_different(base, ours(tiny_model, tmp_path / "b", prompt="a red car in snow"))
    assert_different(base, ours(tiny_model, tmp_path / "c", negative_prompt="a blue teapot on grass"))


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
