"""Latents of images through ppdiffusers' own pipelines; their arguments are chosen in `dreamcore.backends.pipelines`.

Imported after the device is chosen, as ppdiffusers must be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore.backends import pipelines
from dreamcore.backends.protocol import SampleRequest
from dreamcore.models.folder import ModelFolder
from dreamcore.text.conditioning import Conditioning

from .models import imported


@paddle.no_grad()
def make_latents(
    model: ModelFolder,
    parts: Mapping[str, Any],
    request: SampleRequest,
    positive: Conditioning[paddle.Tensor],
    negative: Conditioning[paddle.Tensor],
) -> NDArray[np.float32]:
    """Latents [N, C, h, w] of the images, as the autoencoder decodes them."""
    pipeline = pipelines.make_pipeline(imported("ppdiffusers"), model, parts, request.scheduler)
    with _equations_of_one_type():
        return pipelines.make_latents(
            pipeline,
            model,
            request,
            (positive, negative),
            paddle.to_tensor,
            lambda latents: latents.cast("float32").numpy(),
        )


@contextmanager
def _equations_of_one_type() -> Iterator[None]:
    """ppdiffusers' UniPC mixes float32 and float64 in its equations: Paddle 3 refuses to solve them as they are."""
    solve = paddle.linalg.solve
    paddle.linalg.solve = lambda matrix, values: solve(matrix.cast("float64"), values.cast("float64"))
    try:
        yield
    finally:
        paddle.linalg.solve = solve
