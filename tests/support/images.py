"""Images of our own sampler, and of a library's own pipeline from the same first noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import dreamcore
from dreamcore.diffusion.randomness import first_noise
from dreamcore.families.packing import pack, stacked
from dreamcore.models.folder import ModelFolder

PROMPT, SEEDS, STEPS, GUIDANCE = "a photo of sks dog", [3, 4], 4, 4.0


def ours(model: Path, output: Path, **settings: Any) -> np.ndarray:
    """[N, H, W, 3] of `generate`, one of each seed unless settings ask for others."""
    given = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "contact_sheet": False, "device": "cpu"}
    side = ModelFolder.open(str(model)).native_resolution  # and not the run's
    given |= {
        "height": side,
        "width": side,
        "prompt": PROMPT,
        "num_images": len(SEEDS),
        "seed": SEEDS[0],
        "output_dir": str(output),
    }
    files = dreamcore.generate(pretrained_model_name_or_path=str(model), **given | settings)
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


def theirs(
    library: Any, pipeline: Any, model: Path, to_tensor: Callable[[Any], Any], size: int | None = None, **more: Any
) -> np.ndarray:
    """The same of a loaded pipeline of diffusers' or of a port, with the sampler that we choose for the model."""
    folder = ModelFolder.open(str(model))
    if folder.schedule.samplers[0] == "ddim":
        pipeline.scheduler = library.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    arranged = stacked if folder.family.stacks_squares else pack
    size = size or folder.native_resolution
    side = size // folder.latent_factor
    made, *_ = pipeline(
        prompt=[PROMPT] * len(SEEDS),
        latents=to_tensor(arranged(first_noise(SEEDS, (folder.latent_channels, side, side)), folder.family.patch)),
        height=size,
        width=size,
        num_inference_steps=STEPS,
        output_type="np",
        return_dict=False,
        **{folder.family.guidance_argument: GUIDANCE},
        **more,
    )
    return np.round(np.asarray(made) * 255).astype(int)


def distance(one: np.ndarray, other: np.ndarray) -> int:
    """Grey levels between images where they differ most; 1 where the same numbers were summed in another order."""
    assert one.shape == other.shape
    return int(np.abs(one - other).max())
