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
from dreamcore.text.conditions import Conditioning

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
    pipeline = pipelines.make_pipeline(imported("ppdiffusers"), model, parts, request)
    with _equations_of_one_type(), _noise_by_numpy(), _bounds_of_several_numbers():
        return pipelines.make_latents(
            pipeline,
            model,
            request,
            (positive, negative),
            paddle.to_tensor,
            lambda latents: latents.cast("float32").numpy(),
            raw="pd",
            generator=[np.random.Generator(np.random.PCG64(seed)) for seed in request.seeds],
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


@contextmanager
def _bounds_of_several_numbers() -> Iterator[None]:
    """ppdiffusers' dynamic thresholding clips each image at a bound of its own: Paddle 3 clips at one number alone."""
    clip = paddle.clip

    def clipped(x: paddle.Tensor, min: Any = None, max: Any = None, **more: Any) -> paddle.Tensor:
        if isinstance(min, paddle.Tensor) and isinstance(max, paddle.Tensor):
            return paddle.minimum(paddle.maximum(x, min), max)
        return clip(x, min, max, **more)

    paddle.clip = clipped
    try:
        yield
    finally:
        paddle.clip = clip


@contextmanager
def _noise_by_numpy() -> Iterator[None]:
    """ppdiffusers' generators are states of CUDA devices: here NumPy's take their place, one for each image."""
    utils = imported("ppdiffusers.utils.paddle_utils")
    draw = utils.randn_pt

    def randn(shape: Any, dtype: Any = None, *, generator: np.random.Generator | None = None) -> paddle.Tensor:
        if generator is None:  # flow matching's sampler draws noise that it then has no use for
            return draw(shape, dtype=dtype)
        return paddle.to_tensor(generator.standard_normal(tuple(shape), np.float32)).cast(dtype or "float32")

    utils.randn_pt = randn
    try:
        yield
    finally:
        utils.randn_pt = draw
