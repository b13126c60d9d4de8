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
from dreamcore.families.packing import pack
from dreamcore.modelfolder import ModelFolder
from dreamcore.pictures import first_noise
from dreamcore.track.metrics import read_lines

from .cases import CASES, CONTINUED, PICTURES, TOLERANCES, WRITTEN, model_of, reference_run, runs_on, settings

BACKENDS = [folder.name for folder in sorted(WRITTEN.glob("*"))] or ["no backend has written anything"]


PAIRS = [
    (backend, case) for backend in BACKENDS for case in CASES if backend not in TOLERANCES or runs_on(backend, case)
]


@pytest.fixture
def written(request: pytest.FixtureRequest) -> Path:
    return WRITTEN / str(request.param)


@pytest.mark.parametrize(("written", "case"), PAIRS, indirect=["written"])
def test_diffusers_makes_the_same_pictures(written: Path, case: str) -> None:
    """Of the finished pipeline or LoRA file, with diffusers' own pipeline, loader and sampler."""
    import torch
    from diffusers import DDIMScheduler, DiffusionPipeline

    is_lora = bool(CASES[case].get("use_lora"))
    folder = written / "runs" / case
    pipeline: Any = DiffusionPipeline.from_pretrained(model_of(case) if is_lora else folder)
    if is_lora:
        pipeline.load_lora_weights(folder)
    described = ModelFolder.open(str(model_of(case)))
    if described.schedule.samplers[0] == "ddim":
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    seeds = [PICTURES["seed"] + k for k in range(PICTURES["num_images"])]
    made = pipeline(
        [PICTURES["prompt"]] * len(seeds),
        latents=torch.from_numpy(pack(first_noise(seeds, (described.latent_channels, 8, 8)), described.family.patch)),
        height=32,
        width=32,
        num_inference_steps=PICTURES["num_inference_steps"],
        guidance_scale=PICTURES["guidance_scale"],
        output_type="np",
    ).images
    theirs = np.stack([np.asarray(Image.open(f)) for f in sorted((written / "pictures" / case).glob("0*.png"))])
    assert np.abs(np.round(made * 255) - theirs.astype(float)).max() <= 2


@pytest.mark.parametrize(("written", "method"), [p for p in PAIRS if p[1] in CONTINUED], indirect=["written"])
def test_a_checkpoint_comes_back(written: Path, method: str, tmp_path: Path) -> None:
    """Ten updates here, ten there, the others here again: as all of them here, moments included."""
    folder = tmp_path / "run"
    checkpoint = Path(shutil.copytree(written / "continued" / method / "checkpoint-20", tmp_path / "checkpoint-20"))
    again = settings(method, folder) | {"resume_from_checkpoint": str(checkpoint), "backend": "torch", "device": "cpu"}
    run = dreamcore.train(**again)
    wanted = [r for r in read_lines(reference_run(method) / "metrics.jsonl") if r["step"] > 20]
    assert [r["step"] for r in run.metrics] == [r["step"] for r in wanted]
    for name in ("loss", "grad_norm"):
        mine, theirs = ([r[name] for r in records] for records in (run.metrics, wanted))
        np.testing.assert_allclose(mine, theirs, rtol=TOLERANCES[written.name])
