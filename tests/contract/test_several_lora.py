"""Several LoRA files at once in `generate`, each with its strength."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dreamcore.config import GenerateConfig, load_config
from dreamcore.errors import ConfigError

from ..support.images import distance, ours
from ..support.lora import ENCODER, UNET, folded, write_lora

FILES = {
    "one": [f"{UNET}.to_q", f"{UNET}.to_out.0"],
    "other": [f"{UNET}.to_q", f"{UNET}.to_k", f"{ENCODER}.q_proj"],
}
"""LoRA file -> its layers: one has none of the text encoder's, and the query is in both."""
SCALES = [0.8, -0.5]


def test_the_sum_of_both(tiny_model: Path, tmp_path: Path) -> None:
    files = [
        write_lora(tiny_model, tmp_path / f"{name}.safetensors", layers, seed=len(layers))
        for name, layers in FILES.items()
    ]
    both = {"lora": [str(file) for file in files], "lora_scale": SCALES}
    few = {"num_images": 1, "num_inference_steps": 2}
    model = folded(tiny_model, tmp_path / "folded", dict(zip(files, SCALES, strict=True)))
    made = ours(tiny_model, tmp_path / "both", **both, **few)
    assert distance(made, ours(model, tmp_path / "pictures", **few)) <= 1
    assert json.loads((tmp_path / "both" / "pictures.json").read_text())["settings"].items() >= both.items()
    text = Image.open(tmp_path / "both" / "00000.png").text["parameters"]  # type: ignore[attr-defined]
    assert 'Lora: "one, other", Lora strength: "0.8, -0.5"' in text


def settings(**given: object) -> GenerateConfig:
    return load_config(GenerateConfig, None, {"prompt": "a", "pretrained_model_name_or_path": "m", **given})


def test_one_strength_for_all_or_one_for_each() -> None:
    assert settings(lora="a,b", lora_scale="0.5").loras == [("a", 0.5), ("b", 0.5)]
    assert settings(lora=["a", "b"], lora_scale=[0.5, 2]).loras == [("a", 0.5), ("b", 2.0)]
    assert settings(lora="a,b").loras == [("a", 1.0), ("b", 1.0)]
    assert settings(lora="a", lora_scale=0.5).loras == [("a", 0.5)]
    assert settings().loras == []
    with pytest.raises(ConfigError, match="lora_scale: 2 numbers for 3 LoRA files; give one for all, or one for each"):
        settings(lora="a,b,c", lora_scale="1,2")


def test_a_file_with_a_comma_in_its_name_is_one(tmp_path: Path) -> None:
    file = tmp_path / "red,blue.safetensors"
    file.touch()
    assert settings(lora=str(file)).lora == [str(file)]
    assert settings(lora=f"{file}x,b").lora == [str(tmp_path / "red"), "blue.safetensorsx", "b"]
