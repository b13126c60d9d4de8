"""LoRA merged into a model's weights makes the pictures that the model makes with the LoRA file."""

from __future__ import annotations

from pathlib import Path

import dreamcore

from ..support import needs
from ..support.images import distance, ours
from ..support.lora import ENCODER, UNET, write_lora


@needs.torch
def test_the_same_pictures(tiny_model: Path, tmp_path: Path) -> None:
    layers = [f"{UNET}.to_q", f"{UNET}.to_out.0", f"{ENCODER}.q_proj"]
    file = write_lora(tiny_model, tmp_path / "lora.safetensors", layers)
    named = {"pretrained_model_name_or_path": str(tiny_model)}
    dreamcore.convert(source=str(file), target=str(tmp_path / "theirs.safetensors"), to="kohya", **named)
    merged = dreamcore.merge(
        target=str(tmp_path / "merged"), lora=str(tmp_path / "theirs.safetensors"), lora_scale=0.8, **named
    )
    made = ours(merged.target, tmp_path / "pictures", num_images=1)
    assert distance(made, ours(tiny_model, tmp_path / "beside", lora=str(file), lora_scale=0.8, num_images=1)) <= 1
    assert distance(made, ours(tiny_model, tmp_path / "without", num_images=1)) > 1
