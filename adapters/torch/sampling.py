"""Pictures through diffusers' own pipelines and schedulers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore.backend import SampleRequest
from dreamcore.families.packing import pack, unpack
from dreamcore.modelfolder import ModelFolder

from .words import Condition

SCHEDULERS: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "discrete": {
        "ddim": (diffusers.DDIMScheduler, {}),
        "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
        "dpmsolver++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
        "euler": (diffusers.EulerDiscreteScheduler, {}),
        "unipc": (diffusers.UniPCMultistepScheduler, {}),
    },
    "flow": {"euler": (diffusers.FlowMatchEulerDiscreteScheduler, {})},
    "edm": {
        "euler": (diffusers.EDMEulerScheduler, {}),
        "dpmsolver++": (diffusers.EDMDPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    },
}


def make_scheduler(name: str, model: ModelFolder) -> Any:
    """A sampler by the name that settings use, over the model's own noise schedule."""
    prediction = model.schedule.prediction
    cls, options = SCHEDULERS.get(prediction, SCHEDULERS["discrete"])[name]
    return cls.from_config(model.config("scheduler"), **options)


def make_pipeline(model: ModelFolder, parts: Mapping[str, Any], scheduler: Any = None) -> Any:
    """diffusers' pipeline of the model's class over these parts; it does without the others."""
    cls = getattr(diffusers, model.index["_class_name"])
    accepted = inspect.signature(cls.__init__).parameters
    given: dict[str, Any] = {n: None for n, p in accepted.items() if p.default is p.empty and n != "self"}
    given |= {n: False for n in ("requires_safety_checker", "add_watermarker") if n in accepted}
    pipeline = cls(**(given | {"scheduler": scheduler} | dict(parts)))
    pipeline.vae_scale_factor = model.latent_factor
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def make_latents(
    pipeline: Any, model: ModelFolder, request: SampleRequest, positive: Condition, negative: Condition
) -> torch.Tensor:
    """Latents [N, C, h, w] of the pictures.

    Args:
        positive: of the prompts, N rows.
        negative: of the negative prompt, N rows.
    """
    words, height, width = positive.words, *request.noise.shape[2:4]
    assert words is not None
    patch = model.family.patch
    guided = model.family.classifier_free and request.guidance_scale > 1
    given = {"prompt_embeds": positive.words, "pooled_prompt_embeds": positive.pooled}
    if guided:
        given |= {"negative_prompt_embeds": negative.words, "negative_pooled_prompt_embeds": negative.pooled}
    result = pipeline(
        **{name: value for name, value in given.items() if value is not None},
        latents=torch.from_numpy(pack(request.noise, patch)).to(words.device, words.dtype),
        generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        height=height * model.latent_factor,
        width=width * model.latent_factor,
        output_type="latent",
    )
    latents = result.images
    if patch == 1:
        return latents
    return torch.from_numpy(unpack(latents.float().cpu().numpy(), patch, (height, width))).to(latents.device)


def to_pixels(decoded: torch.Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [−1, 1] to pictures [N, H, W, 3]."""
    scaled = (decoded.float() / 2 + 0.5).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
