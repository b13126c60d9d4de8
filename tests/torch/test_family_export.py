"""What a run leaves is loaded by diffusers' own pipelines, and gives the images of our own sampler: every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.errors import ConfigError
from dreamcore.formats.weights import write_safetensors

from ..contract.test_families import PIPELINES
from ..support import images as pictures
from ..support import needs
from ..support.images import distance, ours
from ..support.runs import small_run

pytestmark = needs.torch

TRAINING = {"train_text_encoder": True, "max_train_steps": 3}
COMPONENTS = {
    "sd1": {"unet", "text_encoder"},
    "sdxl": {"unet", "text_encoder", "text_encoder_2"},
    "sd3": {"transformer", "text_encoder", "text_encoder_2"},
    "flux": {"transformer", "text_encoder"},
}
"""What trains together with the text encoders: T5 never does."""
Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def models(tiny_model: Path, family_models: Models) -> Models:
    return lambda family: tiny_model if family == "sd1" else family_models(family)


def pipeline(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(folder)


def theirs(loaded: Any, model: Path) -> np.ndarray:
    import diffusers
    import torch

    return pictures.theirs(diffusers, loaded, model, torch.from_numpy)


@pytest.mark.parametrize("family", COMPONENTS)
def test_a_full_run_in_diffusers_pipeline(family: str, models: Models, photos: Path, tmp_path: Path) -> None:
    run = small_run(models(family), photos, tmp_path / "run", **TRAINING, learning_rate=1e-3)
    mine = ours(run.folder, tmp_path / "mine")
    loaded = pipeline(run.folder)
    assert type(loaded).__name__ == PIPELINES.get(family, "StableDiffusionPipeline")
    assert distance(mine, theirs(loaded, run.folder)) <= 1
    assert distance(mine, ours(models(family), tmp_path / "base")) > 8


@pytest.mark.parametrize("family", COMPONENTS)
def test_a_lora_file_in_diffusers_loader(family: str, models: Models, photos: Path, tmp_path: Path) -> None:
    """Every factor reaches a layer, with alpha folded in: the same product, scale one; and the images are ours."""
    model = models(family)
    settings = TRAINING | {"use_lora": True, "rank": 3, "lora_alpha": 12, "learning_rate": 0.05}
    run = small_run(model, photos, tmp_path / "run", **settings, checkpointing_steps=3)
    mine = ours(model, tmp_path / "mine", lora=str(run.folder))
    loaded = pipeline(model)
    loaded.load_lora_weights(run.folder, adapter_name="a")
    assert distance(mine, theirs(loaded, model)) <= 1
    assert distance(mine, ours(model, tmp_path / "base")) > 8
    raw = load_file(run.folder / "checkpoint-3" / "lora_factors.safetensors")
    components = {name.partition(".")[0] for name in raw}
    assert components == COMPONENTS[family]
    found = 0
    for component in components:
        for name, module in getattr(loaded, component).named_modules():
            if hasattr(module, "lora_A") and "a" in module.lora_A:
                prefix = "text_model." if name.startswith("encoder.") else ""
                key = f"{component}.{prefix}{name}"
                product = raw[f"{key}.lora_B.weight"] @ raw[f"{key}.lora_A.weight"] * (12 / 3)
                delta = module.get_delta_weight("a").detach().numpy()
                np.testing.assert_allclose(delta, product.reshape(delta.shape), atol=1e-6)
                found += 1
    assert 2 * found == len(raw)


def test_factors_that_diffusers_never_loads_are_refused(models: Models, tmp_path: Path) -> None:
    """Its reader passes by T5, whose layers the model has."""
    model, layer = models("sd3"), "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q"
    shape = load_file(model / "text_encoder_3" / "model.safetensors")[f"{layer.partition('.')[2]}.weight"].shape
    factors = {f"{layer}.lora_A.weight": np.ones((1, shape[1])), f"{layer}.lora_B.weight": np.ones((shape[0], 1))}
    write_safetensors(tmp_path / "t5.safetensors", factors)
    with pytest.raises(
        ConfigError, match=rf"lora: .*t5\.safetensors: {layer}: diffusers loads no factors of this layer"
    ):
        ours(model, tmp_path / "out", lora=str(tmp_path / "t5.safetensors"))
