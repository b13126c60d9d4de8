"""LoRA files for tests, and models into whose weights NumPy has folded them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dreamcore.formats.weights import Arrays, read_weights, write_safetensors
from dreamcore.models.folder import ModelFolder

UNET = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
ENCODER = "text_encoder.text_model.encoder.layers.0.self_attn"


def write_lora(model: Path, file: Path, layers: Sequence[str], alpha: float = 2.0, seed: int = 0) -> Path:
    """Factors of rank 2 that show, of a model's layers COMPONENT.LAYER, each with its alpha."""
    draw, arrays, folder = np.random.default_rng(seed), Arrays(), ModelFolder.open(str(model))
    for layer in layers:
        component, _, name = layer.partition(".")
        outputs, inputs = read_weights(folder.weight_files(component))[f"{name}.weight"].shape
        arrays |= {
            f"{layer}.lora_A.weight": draw.standard_normal((2, inputs)).astype(np.float32),
            f"{layer}.lora_B.weight": draw.standard_normal((outputs, 2)).astype(np.float32),
            f"{layer}.alpha": np.array(alpha, np.float32),
        }
    write_safetensors(file, arrays)
    return file


def folded(model: Path, copy: Path, files: Mapping[Path, float]) -> Path:
    """A copy of a model with LoRA files of `write_lora` in its weights, each with its strength: W + s · α/r · B A."""
    folder = ModelFolder.open(str(shutil.copytree(model, copy)))
    for file, strength in files.items():
        arrays = read_weights([file])
        for down in (name for name in arrays if "lora_A" in name):
            component, _, layer = down.removesuffix(".lora_A.weight").partition(".")
            weights = read_weights(folder.weight_files(component))
            alpha = float(arrays[f"{component}.{layer}.alpha"])
            product = arrays[down.replace("lora_A", "lora_B")].astype("f8") @ arrays[down].astype("f8")
            weight = weights[f"{layer}.weight"] + strength * alpha / len(arrays[down]) * product
            weights[f"{layer}.weight"] = weight.astype(np.float32)
            write_safetensors(folder.weight_files(component)[0], weights)
    return copy
