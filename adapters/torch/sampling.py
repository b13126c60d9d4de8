"""Latents of images through diffusers' own pipelines; their arguments are chosen in `dreamcore.backends.pipelines`."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore.backends import pipelines
from dreamcore.backends.protocol import SampleRequest
from dreamcore.models.folder import ModelFolder
from dreamcore.text import conditions

Conditioning = conditions.Conditioning[torch.Tensor]


@torch.no_grad()
def make_latents(
    model: ModelFolder, denoiser: Any, request: SampleRequest, positive: Conditioning, negative: Conditioning
) -> NDArray[np.float32]:
    """Latents [N, C, h, w] of the images, as the autoencoder decodes them."""
    embeddings = positive.prompt_embeds
    assert embeddings is not None

    def to_tensor(array: NDArray[Any]) -> torch.Tensor:
        """Whole numbers stay whole."""
        return torch.from_numpy(array).to(embeddings.device, embeddings.dtype if array.dtype.kind == "f" else None)

    return pipelines.make_latents(
        pipelines.make_pipeline(diffusers, model, {model.family.denoiser: denoiser}, request),
        model,
        request,
        (positive, negative),
        to_tensor,
        lambda latents: latents.float().cpu().numpy(),
        raw="pt",
        generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
    )
