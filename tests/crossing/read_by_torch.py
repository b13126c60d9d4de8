"""PyTorch reads what the other backends' tests have written: `pytest tests/crossing/read_by_torch.py`, after them.

Not collected by itself: without those files there is nothing to look at, and then it fails.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.pictures import first_noise
from dreamcore.track.metrics import read_lines

from .cases import CASES, PICTURES, WRITTEN, model_of, reference_run, settings

BACKENDS = [folder.name for folder in sorted(WRITTEN.glob("*"))] or ["no backend has written anything"]


@pytest.fixture(params=BACKENDS)
def written(request: pytest.FixtureRequest) -> Path:
    return WRITTEN / str(request.param)


@pytest.mark.parametrize("case", CASES)
def test_diffusers_makes_the_same_pictures(written: Path, case: str) -> None:
    """Of the finished pipeline or LoRA file, with diffusers' own pipeline, loader and sampler."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    is_lora = bool(CASES[case].get("use_lora"))
    folder = written / "runs" / case
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model_of(case) if is_lora else folder, safety_checker=None)
    if is_lora:
        pipeline.load_lora_weights(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    seeds = [PICTURES["seed"] + k for k in range(PICTURES["num_images"])]
    made = pipeline(
        [PICTURES["prompt"]] * len(seeds),
        latents=torch.from_numpy(first_noise(seeds, (4, 8, 8))),
        num_inference_steps=PICTURES["num_inference_steps"],
        guidance_scale=PICTURES["guidance_scale"],
        output_type="np",
    ).images
    theirs = np.stack([np.asarray(Image.open(f)) for f in sorted((written / "pictures" / case).glob("0*.png"))])
    assert np.abs(np.round(made * 255) - theirs.astype(float)).max() <= 2


@pytest.mark.parametrize("method", ["full with prior", "lora"])
def test_a_checkpoint_comes_back(written: Path, method: str, tmp_path: Path) -> None:
    """Ten updates here, ten there, ten here again: as thirty here, moments included."""
    folder = tmp_path / "run"
    checkpoint = Path(shutil.copytree(written / "continued" / method / "checkpoint-20", tmp_path / "checkpoint-20"))
    again = settings(method, folder) | {"resume_from_checkpoint": str(checkpoint), "backend": "torch", "device": "cpu"}
    run = dreamcore.train(**again)
    wanted = read_lines(reference_run(method) / "metrics.jsonl")[20:]
    assert [r["step"] for r in run.metrics] == [r["step"] for r in wanted] == list(range(21, 31))
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([r[name] for r in run.metrics], [r[name] for r in wanted], rtol=1e-4)
