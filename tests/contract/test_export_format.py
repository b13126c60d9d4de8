"""Each backend exports either library's layout, of the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dreamcore.layouts import PADDLE_LORA_FILE
from dreamcore.modelfolder import ModelFolder
from dreamcore.pdparams import read_pdparams
from dreamcore.weights import read_safetensors

from .runs import small_run


def test_a_pipeline(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    plain = small_run(tiny_model, photos, tmp_path / "a", max_train_steps=1)
    paddles = small_run(tiny_model, photos, tmp_path / "b", max_train_steps=1, export_format="ppdiffusers")
    model = ModelFolder.open(str(paddles.folder))
    assert model.index["text_encoder"] == ["ppdiffusers.transformers", "CLIPTextModel"]
    assert model.index["unet"] == ["ppdiffusers", "UNet2DConditionModel"]
    for name in ("unet", "vae", "text_encoder"):
        (file,) = (paddles.folder / name).glob("*.*s")
        assert file.name == "model_state.pdparams"
        (theirs,) = (plain.folder / name).glob("*.safetensors")
        mine, wanted = read_pdparams(file), read_safetensors(theirs)
        assert mine.keys() == wanted.keys()
        turned = [n for n in wanted if mine[n].shape != wanted[n].shape]
        assert all(n.endswith("weight") and wanted[n].ndim == 2 for n in turned)
        assert bool(turned) == (name != "vae"), "only the VAE's Linear weights are all square here"
        for n, array in wanted.items():
            np.testing.assert_array_equal(np.sort(mine[n], axis=None), np.sort(array, axis=None))
    index = json.loads((plain.folder / "model_index.json").read_text())
    assert index == json.loads((tiny_model / "model_index.json").read_text())


def test_a_lora_file(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, max_train_steps=2, use_lora=True, export_format="ppdiffusers")
    theirs = read_safetensors(run.folder / PADDLE_LORA_FILE)
    for name, array in read_safetensors(run.folder / "pytorch_lora_weights.safetensors").items():
        np.testing.assert_array_equal(theirs[name], array, err_msg="read by its own mark, it is turned back")
