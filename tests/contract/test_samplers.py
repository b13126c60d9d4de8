"""Every sampler on every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.protocol import SampleRequest
from dreamcore.backends.registry import load_backend
from dreamcore.config.common import Scheduler
from dreamcore.diffusion.samplers import SAMPLERS
from dreamcore.models.folder import ModelFolder

from ..support.runs import configuration


def test_every_name_of_the_settings_is_a_sampler() -> None:
    assert tuple(SAMPLERS["discrete"]) == get_args(Scheduler)


@pytest.mark.parametrize("scheduler", get_args(Scheduler))
def test_every_sampler(scheduler: Scheduler, tiny_model: Path) -> None:
    """An image does not depend on its neighbours (to one grey level, for sums run in another order)."""
    config = configuration(tiny_model, Path("photos"), Path("out"), device="cpu")
    backend: Any = load_backend(installed_backends()[0], ModelFolder.open(str(tiny_model)), config)
    noise = np.random.default_rng(0).standard_normal((2, 4, 8, 8), np.float32)

    def pictures(some: slice, guidance: float = 5.0) -> np.ndarray:
        prompts, seeds = ["a dog", "a cat"][some], [0, 1][some]
        made: np.ndarray = backend.sample(SampleRequest(prompts, noise[some], seeds, 3, guidance, scheduler))
        return made.astype(int)

    together, alone = pictures(slice(2)), pictures(slice(1, 2))
    assert together.shape == (2, 32, 32, 3)
    assert np.abs(together[1] - together[0]).max() > 8
    assert np.abs(alone[0] - together[1]).max() <= 1
    assert not np.array_equal(pictures(slice(2), guidance=1.0), together)
    assert backend.denoiser.training is False
