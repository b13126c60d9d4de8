"""Each backend exports either library's layout, of the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.errors import ConfigError
from dreamcore.formats.pdparams import read_pdparams
from dreamcore.formats.ppdiffusers import to_ppdiffusers
from dreamcore.formats.weights import read_safetensors
from dreamcore.io.names import PADDLE_LORA_FILE
from dreamcore.models.folder import ModelFolder

from ..support.runs import small_run


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


def test_ppdiffusers_layout_is_read_or_refused_with_a_way_on(
    tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    to_ppdiffusers(model)
    if installed_backends() == ["paddle"]:
        assert small_run(model, photos, tmp_path / "run", max_train_steps=1).updates == 1
        return
    wanted = r"in ppdiffusers' layout.* --backend paddle, or .*dreambooth convert .* NEW_FOLDER$"
    with pytest.raises(ConfigError, match=wanted):
        small_run(model, photos, tmp_path / "run")
    assert "encod" not in capfd.readouterr().err


def test_a_pickled_part_that_nothing_trains_goes_along(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """PyTorch alone opens it, and writes it as safetensors; the others leave it closed."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    index = json.loads((model / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (model / "model_index.json").write_text(json.dumps(index))
    (model / "safety_checker").mkdir()
    (model / "safety_checker" / "config.json").write_text("{}")
    weights = model / "safety_checker" / "pytorch_model.bin"
    if installed_backends() == ["torch"]:
        import torch

        torch.save({"bias": torch.ones(2)}, weights)
    else:
        weights.write_bytes(b"pickled")
    run = small_run(model, photos, tmp_path / "run", max_train_steps=1)
    (written,) = (run.folder / "safety_checker").glob("*model*")
    if written.suffix == ".bin":
        assert written.read_bytes() == b"pickled"
    else:
        np.testing.assert_array_equal(read_safetensors(written)["bias"], np.ones(2, np.float32))


def test_a_lora_file(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, max_train_steps=2, use_lora=True, export_format="ppdiffusers")
    theirs = read_safetensors(run.folder / PADDLE_LORA_FILE)
    for name, array in read_safetensors(run.folder / "pytorch_lora_weights.safetensors").items():
        np.testing.assert_array_equal(theirs[name], array, err_msg="read by its own mark, it is turned back")
