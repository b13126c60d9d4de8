"""Pictures through mindone's own pipeline and schedulers; imported after the device is chosen."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindone import diffusers
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


def make_pipeline(model: ModelFolder, parts: Mapping[str, Any], scheduler: str) -> Any:
    """mindone's pipeline of the model's class over these parts, with a sampler, by the name that settings use, over the
    model's own noise schedule; it does without the others."""
    kind, options = SCHEDULERS.get(model.schedule.prediction, SCHEDULERS["discrete"])[scheduler]
    made = kind.from_config(model.config("scheduler"), **options)
    cls = getattr(diffusers, model.index["_class_name"])
    accepted = inspect.signature(cls.__init__).parameters
    given: dict[str, Any] = {n: None for n, p in accepted.items() if p.default is p.empty and n != "self"}
    given |= {n: False for n in ("requires_safety_checker", "add_watermarker") if n in accepted}
    pipeline = cls(**(given | {"scheduler": made} | dict(parts)))
    pipeline.vae_scale_factor = model.latent_factor
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_latents(
    pipeline: Any, model: ModelFolder, request: SampleRequest, positive: Condition, negative: Condition
) -> NDArray[np.float32]:
    """Latents [N, C, h, w] of the pictures.

    Args:
        positive: of the prompts, N rows.
        negative: of the negative prompt, N rows.
    """
    height, width = request.noise.shape[2:4]
    given = {"prompt_embeds": positive.words, "pooled_prompt_embeds": positive.pooled}
    if model.family.classifier_free and request.guidance_scale > 1:
        given |= {"negative_prompt_embeds": negative.words, "negative_pooled_prompt_embeds": negative.pooled}
    (latents, *_) = pipeline(
        **{name: value for name, value in given.items() if value is not None},
        latents=ms.Tensor(np.ascontiguousarray(pack(request.noise, model.family.patch))),
        generator=[np.random.Generator(np.random.PCG64(seed)) for seed in request.seeds],
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        height=height * model.latent_factor,
        width=width * model.latent_factor,
        output_type="latent",
    )
    return unpack(latents.asnumpy().astype(np.float32), model.family.patch, (height, width))


def to_pixels(decoded: ms.Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [−1, 1] to pictures [N, H, W, 3]."""
    values = decoded.asnumpy().astype(np.float32)
    scaled = np.clip(values / 2 + 0.5, 0, 1) * 255
    return scaled.round().astype(np.uint8).transpose(0, 2, 3, 1)
