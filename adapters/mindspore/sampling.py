"""Latents of images through mindone's own pipelines; their arguments are chosen in `dreamcore.backends.pipelines`.

Imported after the device is chosen, as mindone must be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindone import diffusers
from numpy.typing import NDArray

from dreamcore.backends import pipelines
from dreamcore.backends.protocol import SampleRequest
from dreamcore.models.folder import ModelFolder
from dreamcore.text.conditions import Conditioning


def make_latents(
    model: ModelFolder,
    parts: Mapping[str, Any],
    request: SampleRequest,
    positive: Conditioning[ms.Tensor],
    negative: Conditioning[ms.Tensor],
) -> NDArray[np.float32]:
    """Latents [N, C, h, w] of the images, as the autoencoder decodes them."""
    return pipelines.make_latents(
        pipelines.make_pipeline(diffusers, model, parts, request),
        model,
        request,
        (positive, negative),
        lambda noise: ms.Tensor(np.ascontiguousarray(noise)),
        lambda latents: latents.asnumpy().astype(np.float32),
        raw="ms",
        generator=[np.random.Generator(np.random.PCG64(seed)) for seed in request.seeds],
    )
