"""An autoencoder whose answers are not finite: one clear error, and no black image."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.errors import RunError

from ..support.runs import PRIOR, small_run

WEIGHTS = "diffusion_pytorch_model.safetensors"
BLAMED = r"the autoencoder \(.*vae\) answers with numbers that are not finite.*--pretrained_vae_model_name_or_path"


def damaged(model: Path, folder: Path, component: str, ending: str) -> Path:
    """A copy of a model with a weight of NaN."""
    copy = Path(shutil.copytree(model, folder))
    file = copy / component / WEIGHTS
    weights = load_file(file)
    (name,) = (name for name in weights if name.endswith(ending))
    save_file(weights | {name: np.full_like(weights[name], np.nan)}, file, metadata={"format": "pt"})
    return copy


def test_photographs_and_pictures(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    encoder = damaged(tiny_model, tmp_path / "a", "vae", "encoder.conv_in.bias")
    with pytest.raises(RunError, match=rf"{sorted(photos.iterdir())[0].name[:1]}.*: {BLAMED}"):
        small_run(encoder, photos, tmp_path / "out")
    with pytest.raises(RunError, match=rf"{photos}.*: {BLAMED}"):
        small_run(encoder, photos, tmp_path / "held", validation_data_dir=str(photos))
    decoder = damaged(tiny_model, tmp_path / "b", "vae", "decoder.conv_out.bias")
    with pytest.raises(RunError, match=BLAMED):
        small_run(decoder, photos, tmp_path / "classes", **PRIOR)
    pictures = {"validation_prompt": "a dog", "num_validation_images": 1, "validation_num_inference_steps": 1}
    with pytest.raises(RunError, match=BLAMED):
        small_run(decoder, photos, tmp_path / "looks", **pictures)
    given = {"prompt": "a dog", "num_inference_steps": 1, "device": "cpu", "output_dir": str(tmp_path / "made")}
    unet = damaged(tiny_model, tmp_path / "c", "unet", "conv_out.bias")
    for model, words in ((decoder, BLAMED), (unet, "the unet answers with numbers that are not finite")):
        with pytest.raises(RunError, match=words):
            generate(GenerateConfig.from_mapping(given | {"pretrained_model_name_or_path": str(model)}))
    assert {f.name for f in tmp_path.glob("*/*.png")} <= {"report.png"}
    assert not list(tmp_path.glob("*/samples/*.png")) and not list(tmp_path.glob("classes/class_images/*.png"))
