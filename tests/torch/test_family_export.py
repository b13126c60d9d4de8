"""What a run of another family leaves is loaded by diffusers' own pipelines, and gives the pictures of our sampler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreamcore.config import GenerateConfig
from dreamcore.families.packing import pack
from dreamcore.generation import generate
from dreamcore.modelfolder import ModelFolder
from dreamcore.pictures import first_noise

from .. import needs
from ..contract.runs import small_run
from ..contract.test_families import PIPELINES

pytestmark = needs.torch

PROMPT, SEEDS, STEPS, GUIDANCE = "a photo of sks dog", [3, 4], 4, 4.0
TRAINING = {"train_text_encoder": True, "max_train_steps": 3}
COMPONENTS = {
    "sdxl": {"unet", "text_encoder", "text_encoder_2"},
    "sd3": {"transformer", "text_encoder", "text_encoder_2"},
    "flux": {"transformer", "text_encoder"},
}
"""What trains together with the text encoders: T5 never does."""
Models = Callable[[str], Path]


def ours(model: Path, output: Path, **settings: Any) -> NDArray[np.float64]:
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
    files = generate(GenerateConfig.from_mapping(config | settings))
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(float)


def pipeline(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def theirs(pipeline: Any, model: Path, **more: Any) -> NDArray[np.float64]:
    import torch
    from diffusers import DDIMScheduler

    folder = ModelFolder.open(str(model))
    if folder.schedule.samplers[0] == "ddim":
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    side = folder.native_resolution // folder.latent_factor
    made = pipeline(
        [PROMPT] * len(SEEDS),
        latents=torch.from_numpy(pack(first_noise(SEEDS, (folder.latent_channels, side, side)), folder.family.patch)),
        height=folder.native_resolution,
        width=folder.native_resolution,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
        **more,
    ).images
    return np.round(made * 255)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_full_run_in_diffusers_pipeline(family: str, family_models: Models, photos: Path, tmp_path: Path) -> None:
    run = small_run(family_models(family), photos, tmp_path / "run", **TRAINING, learning_rate=1e-3)
    mine = ours(run.folder, tmp_path / "mine")
    loaded = pipeline(run.folder)
    assert type(loaded).__name__ == PIPELINES[family]
    assert np.abs(mine - theirs(loaded, run.folder)).max() <= 1
    assert np.abs(mine - ours(family_models(family), tmp_path / "base")).max() > 8


@pytest.mark.parametrize("family", PIPELINES)
def test_a_lora_file_in_diffusers_loader(family: str, family_models: Models, photos: Path, tmp_path: Path) -> None:
    """Every factor reaches a layer, with alpha folded in: the same product; and the pictures are ours."""
    from safetensors.numpy import load_file

    model = family_models(family)
    settings = TRAINING | {"use_lora": True, "rank": 3, "lora_alpha": 12, "learning_rate": 0.05}
    run = small_run(model, photos, tmp_path / "run", **settings, checkpointing_steps=3)
    mine = ours(model, tmp_path / "mine", lora=str(run.folder))
    loaded = pipeline(model)
    loaded.load_lora_weights(run.folder, adapter_name="a")
    assert np.abs(mine - theirs(loaded, model)).max() <= 1
    assert np.abs(mine - ours(model, tmp_path / "base")).max() > 8
    raw = load_file(run.folder / "checkpoint-3" / "lora_factors.safetensors")
    components = {name.partition(".")[0] for name in raw}
    assert components == COMPONENTS[family]
    found = 0
    for component in components:
        for name, module in getattr(loaded, component).named_modules():
            if hasattr(module, "lora_A") and "a" in module.lora_A:
                prefix = "text_model." if name.startswith("encoder.") else ""
                key = f"{component}.{prefix}{name}"
                product = raw[f"{key}.lora_B.weight"] @ raw[f"{key}.lora_A.weight"] * (12 / 3)
                delta = module.get_delta_weight("a").detach().numpy()
                np.testing.assert_allclose(delta, product.reshape(delta.shape), atol=1e-6)
                found += 1
    assert 2 * found == len(raw)
