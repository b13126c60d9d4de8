"""Pictures through mindone's own pipeline and schedulers; imported after the device is chosen."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindone import diffusers
from numpy.typing import NDArray

from dreamcore.backend import SampleRequest

SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "dpmsolver++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}


def make_pipeline(request: SampleRequest, config: dict[str, Any], **parts: Any) -> diffusers.StableDiffusionPipeline:
    """mindone's pipeline of the given parts, with the request's sampler over the model's own noise schedule."""
    cls, options = SCHEDULERS[request.scheduler]
    pipeline = diffusers.StableDiffusionPipeline(
        **parts,
        scheduler=cls.from_config(config, **options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_latents(
    pipeline: diffusers.StableDiffusionPipeline,
    request: SampleRequest,
    embeddings: ms.Tensor,
    negative: ms.Tensor,
    size: tuple[int, int],
) -> ms.Tensor:
    """Latents [N, C, h, w] of the pictures.

    Args:
        embeddings: [N, tokens, width] of the prompts.
        negative: [N, tokens, width] of the negative prompt.
        size: height and width in pixels.
    """
    (latents, *_) = pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative if request.guidance_scale > 1 else None,
        latents=ms.Tensor(np.ascontiguousarray(request.noise)),
        generator=[np.random.Generator(np.random.PCG64(seed)) for seed in request.seeds],
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        height=size[0],
        width=size[1],
        output_type="latent",
    )
    return latents


def to_pixels(decoded: ms.Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [−1, 1] to pictures [N, H, W, 3]."""
    values = decoded.asnumpy().astype(np.float32)
    scaled = np.clip(values / 2 + 0.5, 0, 1) * 255
    return scaled.round().astype(np.uint8).transpose(0, 2, 3, 1)
