"""Latents of pictures through mindone's own pipelines; what they are told stands in `dreamcore.pipelines`.

Imported after the device is chosen, as mindone must be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindone import diffusers
from numpy.typing import NDArray

from dreamcore import pipelines
from dreamcore.backend import SampleRequest
from dreamcore.modelfolder import ModelFolder

from .words import Condition


def make_latents(
    model: ModelFolder, parts: Mapping[str, Any], request: SampleRequest, positive: Condition, negative: Condition
) -> NDArray[np.float32]:
    """Latents [N, C, h, w] of the pictures, as the autoencoder decodes them."""
    return pipelines.make_latents(
        pipelines.make_pipeline(diffusers, model, parts, request.scheduler),
        model,
        request,
        (positive, negative),
        lambda noise: ms.Tensor(np.ascontiguousarray(noise)),
        lambda latents: latents.asnumpy().astype(np.float32),
        generator=[np.random.Generator(np.random.PCG64(seed)) for seed in request.seeds],
    )
