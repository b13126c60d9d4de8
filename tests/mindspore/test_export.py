"""What a run leaves, mindone's own pipeline loads by itself, to the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..crossing.cases import reference
from ..support import needs
from ..support.images import distance, ours, theirs
from ..support.runs import small_run

pytestmark = needs.mindspore


@pytest.mark.parametrize("use_lora", [False, True])
def test_mindones_pipeline_makes_the_same_pictures(use_lora: bool, photos: Path, tmp_path: Path) -> None:
    import mindspore as ms
    from mindone import diffusers

    start = reference("models") / "sd1"
    settings = {"use_lora": use_lora, "train_text_encoder": True, "learning_rate": 1e-2, "max_train_steps": 2}
    run = small_run(start, photos, tmp_path / "run", **settings)
    model = start if use_lora else run.folder
    mine = ours(model, tmp_path / "ours", **({"lora": str(run.folder)} if use_lora else {}))
    loaded: Any = diffusers.StableDiffusionPipeline.from_pretrained(str(model), safety_checker=None)
    if use_lora:
        loaded.load_lora_weights(str(run.folder))
    assert distance(mine, theirs(diffusers, loaded, model, ms.Tensor)) <= 1
    assert distance(mine, ours(start, tmp_path / "untrained")) > 8, "training shows in the images"
