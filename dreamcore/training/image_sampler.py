"""Images of one prompt, each from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..backends.protocol import Backend, SampleRequest
from ..config.common import Scheduler
from ..diffusion.randomness import first_noise


@dataclass(frozen=True)
class ImageSampler:
    """Validation images, or class images: everything but their seeds."""

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    scheduler: Scheduler
    shape: tuple[int, int, int]
    """[C, h, w] of a latent."""
    batch_size: int
    for_training: bool = False
    """These are class images."""
    images: NDArray[np.float32] | None = None
    """[N, 3, h, w] in [−1, 1] what models that upscale make images of, one for each seed."""

    def make(
        self, backend: Backend, seeds: Sequence[int], step: Callable[[int], None] = lambda count: None
    ) -> NDArray[np.uint8]:
        """[N, H, W, 3], one image a seed, made `batch_size` at a time; `step` is called with how many each time."""
        parts = []
        for start in range(0, len(seeds), self.batch_size):
            some = list(seeds[start : start + self.batch_size])
            request = SampleRequest(
                [self.prompt] * len(some),
                first_noise(some, self.shape),
                some,
                self.steps,
                self.guidance_scale,
                self.scheduler,
                self.negative_prompt,
                self.for_training,
                None if self.images is None else self.images[start : start + self.batch_size],
                learned_variance=self.for_training,  # of the model before its training
            )
            parts.append(backend.sample(request))
            step(len(some))
        return np.concatenate(parts)
