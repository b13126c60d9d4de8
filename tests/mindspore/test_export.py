"""What a run leaves, mindone's own pipeline loads by itself, to the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dreamcore
from dreamcore.pictures import first_noise

from .. import needs
from ..contract.runs import small_run
from ..crossing.cases import PICTURES, pictures, reference

pytestmark = needs.mindspore


@pytest.mark.parametrize("use_lora", [False, True])
def test_mindones_pipeline_makes_the_same_pictures(use_lora: bool, photos: Path, tmp_path: Path) -> None:
    import mindspore as ms
    from mindone.diffusers import DDIMScheduler, StableDiffusionPipeline

    start = reference("models") / "sd1"
    settings = {"use_lora": use_lora, "train_text_encoder": True, "learning_rate": 1e-2, "max_train_steps": 2}
    run = small_run(start, photos, tmp_path / "run", **settings)
    model = start if use_lora else run.folder
    ours = generated(model, tmp_path / "ours", **({"lora": str(run.folder)} if use_lora else {}))
    pipeline: Any = StableDiffusionPipeline.from_pretrained(str(model), safety_checker=None)
    if use_lora:
        pipeline.load_lora_weights(str(run.folder))
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    seeds = [PICTURES["seed"] + k for k in range(PICTURES["num_images"])]
    theirs = pipeline(
        [PICTURES["prompt"]] * len(seeds),
        latents=ms.Tensor(first_noise(seeds, (4, 8, 8))),
        num_inference_steps=PICTURES["num_inference_steps"],
        guidance_scale=PICTURES["guidance_scale"],
        output_type="np",
    )[0]
    assert np.abs(np.round(np.asarray(theirs) * 255) - ours).max() <= 1
    assert np.abs(generated(start, tmp_path / "untrained") - ours).max() > 8, "training shows in the pictures"


def generated(model: Path, output: Path, **lora: str) -> np.ndarray:
    dreamcore.generate(
        pretrained_model_name_or_path=str(model), output_dir=str(output), device="cpu", **lora, **PICTURES
    )
    return pictures(output)
