"""Pictures through diffusers' own pipeline and schedulers."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore.backend import SampleRequest

SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "dpmsolver++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """A sampler by the name that settings use, over the model's own noise schedule."""
    cls, options = SCHEDULERS[name]
    return cls.from_config(config, **options)


def make_pipeline(
    vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: str, schedule: dict[str, Any]
) -> diffusers.StableDiffusionPipeline:
    """diffusers' pipeline over these parts, without a safety checker."""
    return diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(scheduler, schedule),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def make_latents(
    pipeline: diffusers.StableDiffusionPipeline,
    request: SampleRequest,
    embeddings: torch.Tensor,
    negative: torch.Tensor,
    size: tuple[int, int],
) -> torch.Tensor:
    """Latents [N, C, h, w] of the pictures.

    Args:
        embeddings: [N, tokens, width] of the prompts.
        negative: [N, tokens, width] of the negative prompt.
        size: height and width in pixels.
    """
    pipeline.set_progress_bar_config(disable=True)
    device = embeddings.device
    result = pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative if request.guidance_scale > 1 else None,
        latents=torch.from_numpy(request.noise).to(device, embeddings.dtype),
        generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        height=size[0],
        width=size[1],
        output_type="latent",
    )
    return result.images


def to_pixels(decoded: torch.Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [−1, 1] to pictures [N, H, W, 3]."""
    scaled = (decoded.float() / 2 + 0.5).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
