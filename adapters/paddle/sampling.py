"""Pictures through ppdiffusers' own pipeline and schedulers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
import ppdiffusers
from numpy.typing import NDArray

from dreamcore.backend import SampleRequest
from dreamcore.modelfolder import ModelFolder

from .words import Condition


class UniPC(ppdiffusers.UniPCMultistepScheduler):
    """ppdiffusers' sampler, whose equations mix float32 and float64: Paddle 3 refuses to solve them as they are."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        solve = paddle.linalg.solve
        paddle.linalg.solve = lambda matrix, values: solve(matrix.cast("float64"), values.cast("float64"))
        try:
            return super().step(*args, **kwargs)
        finally:
            paddle.linalg.solve = solve


SCHEDULERS: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "discrete": {
        "ddim": (ppdiffusers.DDIMScheduler, {}),
        "pndm": (ppdiffusers.PNDMScheduler, {"skip_prk_steps": True}),
        "dpmsolver++": (ppdiffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
        "euler": (ppdiffusers.EulerDiscreteScheduler, {}),
        "unipc": (UniPC, {}),
    },
    "flow": {"euler": (ppdiffusers.FlowMatchEulerDiscreteScheduler, {})},
    "edm": {
        "euler": (ppdiffusers.EDMEulerScheduler, {}),
        "dpmsolver++": (ppdiffusers.EDMDPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    },
}


def make_scheduler(name: str, model: ModelFolder) -> Any:
    """A sampler by the name that settings use, over the model's own noise schedule; none draws noise of its own."""
    cls, options = SCHEDULERS.get(model.schedule.prediction, SCHEDULERS["discrete"])[name]
    return cls.from_config(model.config("scheduler"), **options)


def make_pipeline(model: ModelFolder, parts: Mapping[str, Any], scheduler: Any) -> Any:
    """ppdiffusers' pipeline of the model's class over these parts; it does without the others."""
    cls = getattr(ppdiffusers, model.index["_class_name"])
    accepted = inspect.signature(cls.__init__).parameters
    given: dict[str, Any] = {n: None for n, p in accepted.items() if p.default is p.empty and n != "self"}
    given |= {n: False for n in ("requires_safety_checker", "add_watermarker") if n in accepted}
    pipeline = cls(**(given | {"scheduler": scheduler} | dict(parts)))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@paddle.no_grad()
def make_latents(
    pipeline: Any, model: ModelFolder, request: SampleRequest, positive: Condition, negative: Condition
) -> paddle.Tensor:
    """Latents [N, C, h, w] of the pictures.

    Args:
        positive: of the prompts, N rows.
        negative: of the negative prompt, N rows.
    """
    height, width = request.noise.shape[2:4]
    given = {"prompt_embeds": positive.words, "pooled_prompt_embeds": positive.pooled}
    if request.guidance_scale > 1:
        given |= {"negative_prompt_embeds": negative.words, "negative_pooled_prompt_embeds": negative.pooled}
    result = pipeline(
        **{name: value for name, value in given.items() if value is not None},
        latents=paddle.to_tensor(request.noise),
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        height=height * model.latent_factor,
        width=width * model.latent_factor,
        output_type="latent",
    )
    return result.images


def to_pixels(decoded: paddle.Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [−1, 1] to pictures [N, H, W, 3]."""
    scaled = (decoded.cast("float32") / 2 + 0.5).clip(0, 1) * 255
    return scaled.round().cast("uint8").transpose([0, 2, 3, 1]).numpy()
