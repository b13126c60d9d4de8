"""PyTorch reads what the other backends' tests have written: `pytest tests/crossing/read_by_torch.py`, after them.

Not collected by itself: without those files there is nothing to look at, and then it fails.
"""

from __future__ import annotations

import shutil
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dreamcore
from dreamcore.diffusion.randomness import first_noise
from dreamcore.families.packing import pack
from dreamcore.models.folder import ModelFolder
from dreamcore.track.metrics import read_lines

from .cases import (
    CASES,
    FAMILY_CASES,
    FAMILY_UPDATES,
    IN_TURN,
    IN_TURN_METHODS,
    PICTURES,
    TOLERANCES,
    furthest,
    model_of,
    pictures,
    pictures_of,
    reference_run,
    runs_on,
    settings,
    written_by,
)
from .table import LIMITS, PAGE, measure, read


@pytest.fixture(params=TOLERANCES)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


OURS_ALONE = ("taiyi lora", "if1 full", "if2 lora")
"""Factors of a BERT, whose layers diffusers' reader of LoRA does not know; and pipelines that take no first noise:
`tests/torch/test_deepfloyd_if.py` compares their pictures."""


@pytest.mark.parametrize(
    ("backend", "case"), [(b, c) for b in TOLERANCES for c in (*CASES, *runs_on(b)) if c not in OURS_ALONE]
)
def test_diffusers_makes_the_same_pictures(backend: str, case: str) -> None:
    """Of the finished pipeline or LoRA file, with diffusers' own pipeline, loader and sampler."""
    import torch
    from diffusers import DDIMScheduler, DiffusionPipeline

    is_lora = bool((CASES | FAMILY_CASES)[case].get("use_lora"))
    folder = written_by(backend, f"runs/{case}")
    pipeline: Any = DiffusionPipeline.from_pretrained(model_of(case) if is_lora else folder)
    if is_lora:
        pipeline.load_lora_weights(folder)
    if pictures_of(case)["scheduler"] == "ddim":
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    model = ModelFolder.open(str(model_of(case)))
    seeds = [PICTURES["seed"] + k for k in range(PICTURES["num_images"])]
    more = {"max_area": 32 * 32} if "max_area" in signature(pipeline.__call__).parameters else {}
    made = pipeline(
        prompt=[PICTURES["prompt"]] * len(seeds),
        latents=torch.from_numpy(pack(first_noise(seeds, (model.latent_channels, 8, 8)), model.family.patch)),
        height=32,
        width=32,
        num_inference_steps=pictures_of(case)["num_inference_steps"],
        guidance_scale=PICTURES["guidance_scale"],
        output_type="np",
        **more,
    ).images
    theirs = pictures(written_by(backend, f"pictures/{case}"))
    assert np.abs(np.round(made * 255) - theirs).max() <= 2


@pytest.mark.parametrize("method", IN_TURN_METHODS)
def test_a_checkpoint_comes_back(backend: str, method: str, tmp_path: Path) -> None:
    """Ten updates here, ten there, the others here again: as all of them here, moments included."""
    folder = tmp_path / "run"
    checkpoint = shutil.copytree(written_by(backend, f"continued/{method}/checkpoint-20"), tmp_path / "checkpoint-20")
    again = {"resume_from_checkpoint": str(checkpoint), "backend": "torch", "device": "cpu"}
    run = dreamcore.train(**(settings(method, folder, IN_TURN) | again))
    figures = furthest(run.metrics, read_lines(reference_run(method) / "metrics.jsonl")[20:IN_TURN])
    assert max(figures.values()) <= TOLERANCES[backend], figures


@pytest.mark.parametrize(("backend", "case"), [(b, c) for b in TOLERANCES for c in runs_on(b)])
def test_a_checkpoint_of_another_family_comes_back(backend: str, case: str, tmp_path: Path) -> None:
    """Five updates there, the others here: as all of them here."""
    checkpoint = shutil.copytree(written_by(backend, f"runs/{case}/checkpoint-5"), tmp_path / "checkpoint-5")
    again = {"resume_from_checkpoint": str(checkpoint), "backend": "torch", "device": "cpu"}
    run = dreamcore.train(**(settings(case, tmp_path / "run", FAMILY_UPDATES) | again))
    figures = furthest(run.metrics, read_lines(reference_run(case) / "metrics.jsonl")[5:])
    assert max(figures.values()) <= TOLERANCES[backend], figures


def test_the_largest_distances() -> None:
    """Of any two of the three backends, as docs/how-it-works.md has them."""
    found = measure()
    for case, figures in found.items():
        for what, limit in LIMITS.items():
            assert figures[what] <= limit, (case, what)
        assert figures["loss"] > 0, "a run compared with itself"
    stated = read(PAGE.read_text(encoding="utf-8"))
    assert stated.keys() == found.keys(), "write the table anew: python -m tests.crossing.table"
    for case, figures in stated.items():
        for what, limit in LIMITS.items():
            assert figures[what] <= limit, (case, what)
