"""Latents of pictures through diffusers' own pipelines; what they are told stands in `dreamcore.pipelines`."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore import pipelines
from dreamcore.backend import SampleRequest
from dreamcore.modelfolder import ModelFolder

from .words import Condition


@torch.no_grad()
def make_latents(
    model: ModelFolder, denoiser: Any, request: SampleRequest, positive: Condition, negative: Condition
) -> NDArray[np.float32]:
    """Latents [N, C, h, w] of the pictures, as the autoencoder decodes them."""
    words = positive.words
    assert words is not None
    return pipelines.make_latents(
        pipelines.make_pipeline(diffusers, model, {model.family.denoiser: denoiser}, request.scheduler),
        model,
        request,
        (positive, negative),
        lambda noise: torch.from_numpy(noise).to(words.device, words.dtype),
        lambda latents: latents.float().cpu().numpy(),
        generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
    )
