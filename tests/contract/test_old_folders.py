"""Folders as diffusers 0.2 to 0.6 wrote them, such as Waifu's and Trinart's: schedulers with fields that are gone, old
names of classes and weights, configurations without what came later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.models.folder import ModelFolder

from ..support import needs
from ..support.runs import numbers, small_run
from ..support.tiny import write_json

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "PNDMScheduler of 0.2": {"skip_prk_steps": True, "tensor_format": "pt", "trained_betas": None},
    "PNDMScheduler of 0.6": {
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "clip_sample": False,
    },
    "DDIMScheduler": {"clip_sample": False, "set_alpha_to_one": False, "tensor_format": "pt", "timestep_values": None},
    "LMSDiscreteScheduler": {"tensor_format": "pt", "timestep_values": None, "trained_betas": None},
    "EulerAncestralDiscreteScheduler": {"trained_betas": None},
}
KEPT = (
    *(
        "act_fn",
        "attention_head_dim",
        "block_out_channels",
        "center_input_sample",
        "cross_attention_dim",
        "in_channels",
    ),
    *("down_block_types", "downsample_padding", "flip_sin_to_cos", "freq_shift", "latent_channels", "layers_per_block"),
    *("mid_block_scale_factor", "norm_eps", "norm_num_groups", "out_channels", "sample_size", "up_block_types"),
    "_class_name",
)
"""Fields of the networks' configurations that there were."""
ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


@pytest.fixture
def old(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as it would have been saved in 2022."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "old"))
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    for name in ("requires_safety_checker", "image_encoder"):
        index.pop(name, None)
    index |= {"_diffusers_version": "0.2.3", "feature_extractor": ["transformers", "CLIPFeatureExtractor"]}
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    write_json(folder / "model_index.json", index)
    for component in ("unet", "vae"):
        file = folder / component / "config.json"
        kept = {name: value for name, value in json.loads(file.read_text("utf-8")).items() if name in KEPT}
        write_json(file, kept | {"_diffusers_version": "0.2.2", "_name_or_path": "/home/someone/stable-diffusion"})
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for name, array in load_file(weights).items():
        for now, before in ATTENTION.items():
            name = name.replace(now, before)
        renamed[name] = array
    save_file(renamed, weights, metadata={"format": "pt"})
    set_scheduler(folder, "PNDMScheduler of 0.2")
    return folder


def set_scheduler(folder: Path, name: str) -> None:
    """Give the model a scheduler of those."""
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    write_json(folder / "model_index.json", index | {"scheduler": ["diffusers", name.split()[0]]})
    written = {"_class_name": name.split()[0], "_diffusers_version": "0.2.3", **NOISE, **SCHEDULERS[name]}
    write_json(folder / "scheduler" / "scheduler_config.json", written)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_old_is_the_same_noise(name: str, old: Path) -> None:
    set_scheduler(old, name)
    schedule = ModelFolder.open(str(old)).schedule
    signal = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2)
    np.testing.assert_allclose(np.asarray(schedule.levels, np.float64), signal, rtol=1e-4)
    assert schedule.prediction == "epsilon" and "ddim" in schedule.samplers


@needs.torch_or_paddle
def test_a_run(old: Path, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """As that of the model as it is written today; what comes of it opens too."""
    few = {"max_train_steps": 1, "use_lora": True, "rank": 2}
    run = small_run(old, photos, tmp_path / "run", **few)
    today = small_run(tiny_model, photos, tmp_path / "today", **few)
    assert numbers(run) == numbers(today)


@needs.torch
def test_what_comes_of_it_opens_in_diffusers(old: Path, photos: Path, tmp_path: Path) -> None:
    """Of pickled weights, with an old safety checker in the index that nobody has."""
    import torch
    from diffusers import StableDiffusionPipeline

    for file in old.glob("*/*.safetensors"):
        name = "pytorch_model.bin" if file.parent.name == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save({key: torch.from_numpy(array) for key, array in load_file(file).items()}, file.with_name(name))
        file.unlink()
    run = small_run(old, photos, tmp_path / "run", max_train_steps=1)
    pipeline = StableDiffusionPipeline.from_pretrained(run.folder, safety_checker=None, feature_extractor=None)
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
