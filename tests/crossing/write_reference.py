"""Write, with PyTorch, what the other backends are compared with: `python -m tests.crossing.write_reference`."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import dreamcore
from dreamcore.backends.registry import load_backend
from dreamcore.config import TrainConfig
from dreamcore.models.folder import ModelFolder

from ..support.ldm import OF_MINDONE
from ..support.tiny import draw_photos, write_tiny_model
from ..support.tiny_models import EVERY
from ..support.tiny_taiyi import write_taiyi
from .cases import (
    CASES,
    COMMON,
    FAMILY_CASES,
    FAMILY_UPDATES,
    REFERENCE,
    SHORT_CASES,
    SHORT_UPDATES,
    UPDATES,
    model_of,
    pictures_of,
    settings,
)
from .operators import OPERATORS, direction, inputs

WHERE = {"backend": "torch", "device": "cpu"}
PROMPTS = ["a photo of sks dog in snow", "", "a red teapot on grass, " * 20]


def main() -> None:
    """Write everything anew."""
    torch.set_num_threads(1)
    shutil.rmtree(REFERENCE, ignore_errors=True)
    models = REFERENCE / "models"
    write_tiny_model(models / "sd1")
    write_tiny_model(models / "sd2", prediction_type="v_prediction", sd2=True)
    for name, write in {**EVERY, **OF_MINDONE, "taiyi": write_taiyi}.items():
        write(models / name)
    draw_photos(REFERENCE / "photos", size=32)
    draw_photos(REFERENCE / "classes", count=3, size=32, seed=5)
    np.savez(REFERENCE / "operators.npz", **operator_results())
    for name in ("sd1", "sd2"):
        np.savez(REFERENCE / f"{name}.npz", **answers(models / name))
    for case in CASES:
        for updates in sorted(set(UPDATES.values())):
            write_run(case, updates)
    for case in SHORT_CASES:
        dreamcore.train(**WHERE, **settings(case, REFERENCE / "runs" / case, SHORT_UPDATES))
    for case in FAMILY_CASES:
        write_run(case, FAMILY_UPDATES)
    (REFERENCE / "complete").touch()


def write_run(case: str, updates: int) -> None:
    """Train, or go on, to so many updates, and make images with what has come of it."""
    folder = REFERENCE / "runs" / case
    run = dreamcore.train(**WHERE, **settings(case, folder, updates), resume_from_checkpoint="latest")
    lora = {"lora": str(run.folder)} if (CASES | FAMILY_CASES)[case].get("use_lora") else {}
    dreamcore.generate(
        **WHERE,
        pretrained_model_name_or_path=str(model_of(case) if lora else run.folder),
        output_dir=str(REFERENCE / "pictures" / str(updates) / case),
        **lora,
        **pictures_of(case),
    )


def answers(model: Path) -> dict[str, Any]:
    """Inputs and outputs of a model's networks."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    draw = np.random.default_rng(1)
    pixels = draw.uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    latents = draw.standard_normal((len(PROMPTS), 4, 8, 8), np.float32)
    timesteps = np.array([3, 500, 999], np.float32)
    vae = AutoencoderKL.from_pretrained(model / "vae")
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    encoder = CLIPTextModel.from_pretrained(model / "text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(pixels)).latent_dist
        scale = vae.config.scaling_factor
        ids = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        words = encoder(ids)[0]
        answer = unet(torch.from_numpy(latents), torch.from_numpy(timesteps), words).sample
    base = {"pretrained_model_name_or_path": str(model), "instance_data_dir": str(REFERENCE / "photos"), **COMMON}
    config = TrainConfig.from_mapping(base | {"backend": "torch", "device": "cpu"})
    tokens = load_backend("torch", ModelFolder.open(str(model)), config).tokenize(PROMPTS)
    return {
        "pixels": pixels,
        "mean": posterior.mean.numpy() * scale,
        "std": posterior.std.numpy() * scale,
        "prompts": np.array(PROMPTS),
        "tokens": np.array([" ".join(t) for t in tokens]),
        "words": words.numpy(),
        "latents": latents,
        "timesteps": timesteps,
        "answer": answer.numpy(),
    }


def operator_results() -> dict[str, Any]:
    """Value and gradients of each call; the gradients are those of the values' product with fixed numbers."""
    of_torch = ("arange", "full", "stack", "unbind", "outer", "einsum", "repeat_interleave", "exp")
    of_torch += ("norm", "ones_like", "tril")
    names = SimpleNamespace(**vars(functional) | {name: getattr(torch, name) for name in of_torch})
    found: dict[str, Any] = {}
    for name, (shapes, call) in OPERATORS.items():
        tensors = [torch.from_numpy(array).requires_grad_() for array in inputs(shapes)]
        value = call(names, *tensors)
        found[f"{name}.value"] = value.detach().numpy()
        if tensors:
            (value * torch.from_numpy(direction(value.shape))).sum().backward()
            found |= {f"{name}.gradient{i}": tensor.grad.numpy() for i, tensor in enumerate(tensors)}
    return found


if __name__ == "__main__":
    main()
