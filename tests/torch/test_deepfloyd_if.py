"""DeepFloyd IF's images are those of diffusers' own pipelines, of both stages, before and after training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.diffusion.randomness import first_noise, upscaling_noise

from ..support import needs
from ..support.runs import small_run

pytestmark = needs.torch

PROMPT, SEED, STEPS, SIZE = "a photo of sks dog", 3, 4, 16
Models = Callable[[str], Path]


def ours(model: Path, output: Path, **settings: Any) -> np.ndarray:
    """[H, W, 3]."""
    given = {"pretrained_model_name_or_path": str(model), "prompt": PROMPT, "seed": SEED, "scheduler": "ddpm"}
    given |= {"num_inference_steps": STEPS, "contact_sheet": False, "output_dir": str(output), "guidance_scale": 3.0}
    (file,) = generate(GenerateConfig.from_mapping(given | settings))
    return np.asarray(Image.open(file)).astype(int)


def theirs(model: Path, lora: Path | None = None, **more: Any) -> np.ndarray:
    """[H, W, 3] by the pipeline that model_index.json names, its own encoding of the prompt and its own scheduler."""
    import torch
    from diffusers import DDPMScheduler, DiffusionPipeline

    absent = dict.fromkeys(("safety_checker", "watermarker", "feature_extractor"))
    pipeline = DiffusionPipeline.from_pretrained(model, **absent, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:  # as diffusers' README of DreamBooth says
        pipeline.load_lora_weights(lora)
        pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, variance_type="fixed_small")
    noise = torch.from_numpy(first_noise([SEED], (3, SIZE, SIZE)))
    pipeline.prepare_intermediate_images = lambda *_: noise
    if more:
        start, scheduler = torch.from_numpy(upscaling_noise([SEED], (3, SIZE, SIZE))), pipeline.image_noising_scheduler
        add = scheduler.add_noise
        scheduler.add_noise = lambda image, _, timesteps: add(image, start, timesteps)
    image, *_ = pipeline(
        PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(SEED)],
        output_type="np",
        clean_caption=False,
        return_dict=False,
        **more,
    )
    return np.asarray((image[0] * 255).round().astype(int))


@pytest.mark.parametrize("stage", ["if1", "if2"])
def test_images(stage: str, family_models: Models, photos: Path, tmp_path: Path) -> None:
    """Of the base model with the variance that it answers with; of a LoRA file and of a finished model without."""
    base, given, more = family_models(stage), dict[str, Any](), dict[str, Any]()
    if stage == "if2":
        file = tmp_path / "low.png"
        Image.fromarray(np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8)).save(file)
        given, more = {"image": str(file), "noise_level": 100}, {"image": Image.open(file), "noise_level": 100}
    untrained = ours(base, tmp_path / "base", **given)
    assert np.abs(untrained - theirs(base, **more)).max() <= 1
    settings = {"resolution": SIZE, "max_train_steps": 2, "learning_rate": 0.02 if stage == "if2" else 1e-3}
    settings |= {"use_lora": True, "rank": 2} if stage == "if2" else {}
    run = small_run(base, photos, tmp_path / "run", **settings).folder
    if stage == "if1":
        mine, expected = ours(run, tmp_path / "mine"), theirs(run)
    else:
        mine, expected = ours(base, tmp_path / "mine", lora=str(run), **given), theirs(base, lora=run, **more)
    assert np.abs(mine - expected).max() <= 1
    assert np.abs(mine - untrained).max() > 8
