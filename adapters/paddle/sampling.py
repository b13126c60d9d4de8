"""Pictures through ppdiffusers' own pipeline and schedulers."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import ppdiffusers
from numpy.typing import NDArray

from dreamcore.backend import SampleRequest


class UniPC(ppdiffusers.UniPCMultistepScheduler):
    """ppdiffusers' sampler, whose equations mix float32 and float64: Paddle 3 refuses to solve them as they are."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        solve = paddle.linalg.solve
        paddle.linalg.solve = lambda matrix, values: solve(matrix.cast("float64"), values.cast("float64"))
        try:
            return super().step(*args, **kwargs)
        finally:
            paddle.linalg.solve = solve


SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (ppdiffusers.DDIMScheduler, {}),
    "pndm": (ppdiffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "dpmsolver++": (ppdiffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "euler": (ppdiffusers.EulerDiscreteScheduler, {}),
    "unipc": (UniPC, {}),
}


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """A sampler by the name that settings use, over the model's own noise schedule; none draws noise of its own."""
    cls, options = SCHEDULERS[name]
    return cls.from_config(config, **options)


@paddle.no_grad()
def make_latents(
    pipeline: Any,
    request: SampleRequest,
    embeddings: paddle.Tensor,
    negative: paddle.Tensor,
    size: tuple[int, int],
) -> paddle.Tensor:
    """Latents [N, C, h, w] of the pictures.

    Args:
        embeddings: [N, tokens, width] of the prompts.
        negative: [N, tokens, width] of the negative prompt.
        size: height and width in pixels.
    """
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative if request.guidance_scale > 1 else None,
        latents=paddle.to_tensor(request.noise),
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        height=size[0],
        width=size[1],
        output_type="latent",
    )
    return result.images


def to_pixels(decoded: paddle.Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [−1, 1] to pictures [N, H, W, 3]."""
    scaled = (decoded.cast("float32") / 2 + 0.5).clip(0, 1) * 255
    return scaled.round().cast("uint8").transpose([0, 2, 3, 1]).numpy()
