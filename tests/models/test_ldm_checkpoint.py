"""A checkpoint of MindONE's is a model like any other: made into a folder once, whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.ldm import UNET, UNetGeometry, VAEGeometry, to_published, unet_names
from dreamcore.formats.ldm_geometry import TextShapes, UNetShapes, VAEShapes
from dreamcore.formats.mindone import by_part
from dreamcore.formats.mindspore_ckpt import read_ckpt, write_ckpt
from dreamcore.formats.weights import read_weights, write_safetensors
from dreamcore.models import ldm_checkpoint
from dreamcore.models.folder import ModelFolder
from dreamcore.models.ldm_checkpoint import open_ldm_checkpoint
from dreamcore.models.ldm_config import Shapes, facts
from dreamcore.models.ldm_export import write_ldm_checkpoint
from dreamcore.text.tokenizer import Tokenizer

from ..support.ldm import CONFIG, CONFIG_2, CONFIG_2_V, GEOMETRY, small_arrays

SD1 = Shapes(
    UNetShapes(UNetGeometry(), 4, 4, 768, linear=False),
    VAEShapes(VAEGeometry(), 3, 3, 4),
    TextShapes(12, 768, 3072, 49408, 77),
)
SD2 = replace(SD1, unet=replace(SD1.unet, context=1024, linear=True), text=TextShapes(23, 1024, 4096, 49408, 77))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dreambooth" / "models"


def checkpoint(folder: Path, config: str = CONFIG, **more: Any) -> tuple[Path, Path]:
    ckpt, yaml = folder / "sd.ckpt", folder / "sd.yaml"
    write_ckpt(ckpt, small_arrays(second="linear_in" in config) | more)
    yaml.write_text(config, encoding="utf-8")
    return ckpt, yaml


def test_it_is_a_model_folder(tmp_path: Path) -> None:
    ckpt, yaml = checkpoint(tmp_path, epoch_num=np.array(3))
    model = ModelFolder.open(str(open_ldm_checkpoint(ckpt, yaml)))
    assert model.family.name.startswith("Stable Diffusion 1")
    unet = model.config("unet")
    assert (unet["block_out_channels"], unet["attention_head_dim"], unet["cross_attention_dim"]) == ([32, 64], 4, 32)
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D", "DownBlock2D"]
    assert unet["up_block_types"] == ["UpBlock2D", "CrossAttnUpBlock2D"]
    assert model.config("vae")["block_out_channels"] == [32, 64]
    assert model.config("text_encoder")["hidden_act"] == "quick_gelu"
    assert (model.latent_factor, model.native_resolution, model.schedule.prediction) == (2, 128, "epsilon")
    assert Tokenizer.open(model).tokenize("sks dog") == ["sks</w>", "dog</w>"]
    wanted = to_published(by_part(read_ckpt(ckpt), "x")[UNET], unet_names(GEOMETRY), "x")
    found = read_weights(model.weight_files("unet"))
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], array) for name, array in wanted.items())


def test_there_and_back(tmp_path: Path) -> None:
    ckpt, yaml = checkpoint(tmp_path)
    assert write_ldm_checkpoint(open_ldm_checkpoint(ckpt, yaml), tmp_path / "again.ckpt") == ()
    before, after = read_ckpt(ckpt), read_ckpt(tmp_path / "again.ckpt")
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert after[name].dtype == array.dtype and np.array_equal(after[name], array), name


def test_the_state_of_training_is_left_out(tmp_path: Path) -> None:
    """MindONE's train_resume.ckpt holds moments and averages too."""
    name = "model.diffusion_model.out.0.gamma"
    more = {f"{state}.{name}": np.zeros(3, np.float32) for state in ("adam_m", "adam_v", "ema", "swap")}
    ckpt, yaml = checkpoint(tmp_path, CONFIG, **more, scale_sense=np.array(65536.0), cur_step=np.array(100))
    assert read_weights([open_ldm_checkpoint(ckpt, yaml) / "unet" / "diffusion_pytorch_model.safetensors"])


def test_folders_that_have_no_place_in_one_file(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(open_ldm_checkpoint(*checkpoint(tmp_path)), tmp_path / "model"))
    weights = folder / "text_encoder" / "model.safetensors"
    arrays = read_weights([weights])
    write_safetensors(weights, arrays | {"text_model.embeddings.position_ids": np.arange(77)})
    left_over = write_ldm_checkpoint(folder, tmp_path / "again.ckpt")
    assert left_over == ("text_encoder/text_model.embeddings.position_ids",)
    write_safetensors(weights, arrays | {"text_projection.weight": np.zeros(3)})
    with pytest.raises(ConfigError, match="text_encoder: unexpected keys: text_projection.weight"):
        write_ldm_checkpoint(folder, tmp_path / "again.ckpt")
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text().replace('"layers_per_block": 1', '"layers_per_block": [1, 1]'))
    with pytest.raises(ConfigError, match=r"unet/config.json: layers_per_block: expected int; received \[1, 1\]"):
        write_ldm_checkpoint(folder, tmp_path / "again.ckpt")


def test_version_2(tmp_path: Path) -> None:
    model = ModelFolder.open(str(open_ldm_checkpoint(*checkpoint(tmp_path, CONFIG_2))))
    assert model.config("unet")["attention_head_dim"] == [2, 4]
    assert model.config("unet")["use_linear_projection"] is True
    assert json.loads((model.folder("tokenizer") / "special_tokens_map.json").read_text())["pad_token"] == "!"
    assert model.config("text_encoder")["hidden_act"] == "gelu"
    assert model.schedule.prediction == "epsilon"
    predicts_v = ModelFolder.open(str(open_ldm_checkpoint(*checkpoint(tmp_path, CONFIG_2_V))))
    assert predicts_v.schedule.prediction == "v_prediction"
    assert predicts_v.config("unet")["sample_size"] == 96


def test_it_is_made_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt, yaml = checkpoint(tmp_path)
    convert, calls = ldm_checkpoint.convert_ldm_checkpoint, []

    def counted(*arguments: Any) -> None:
        calls.append(arguments)
        convert(*arguments)

    monkeypatch.setattr(ldm_checkpoint, "convert_ldm_checkpoint", counted)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: open_ldm_checkpoint(ckpt, yaml), range(4)))
    assert len(folders) == len(calls) == 1
    yaml.write_text(CONFIG.replace("num_heads: 4", "num_heads: 2"), encoding="utf-8")
    assert open_ldm_checkpoint(ckpt, yaml) not in folders, "another description makes another model"


def test_processes_at_once(tmp_path: Path, cache: Path) -> None:
    ckpt, yaml = checkpoint(tmp_path)
    code = "import sys, pathlib as p; from dreamcore.models.ldm_checkpoint import open_ldm_checkpoint as o"
    command = [sys.executable, "-c", f"{code}; print(o(*map(p.Path, sys.argv[1:])))", str(ckpt), str(yaml)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0] and len(answers) == 1
    (folder,) = (file for file in cache.iterdir() if file.is_dir())
    assert answers == {f"{folder}\n"}
    ModelFolder.open(str(folder))


def test_nothing_is_left_of_what_fails(tmp_path: Path, cache: Path) -> None:
    ckpt, yaml = checkpoint(tmp_path, strange=np.zeros(3))
    with pytest.raises(ConfigError, match="sd.ckpt: unexpected keys: strange"):
        open_ldm_checkpoint(ckpt, yaml)
    assert [file for file in cache.iterdir() if file.is_dir()] == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("channel_mult: [ 1, 2 ]", "channel_mult: [ 1, 4 ]", r"channel_mult: says \(32, 128\), where .* \(32, 64\)"),
        ("attention_resolutions: [ 1 ]", "attention_resolutions: [ 1, 2 ]", "attention_resolutions"),
        ("context_dim: 32", "context_dim: 768", "context_dim: says 768, where the checkpoint's arrays have 32"),
        ("heads: 2", "layers: 12", "layers: says 12, where the checkpoint's arrays have 2"),
        ("context_dim: 32", "context_dim: wide", r"model.params.unet_config.params.context_dim: .*received 'wide'"),
        ("num_heads: 4", "legacy2: False", "give num_heads or num_head_channels"),
        ("timesteps: 1000", "beta_schedule: cosine", "beta_schedule: 'cosine' is not supported"),
        ("timesteps: 1000", "parameterization: x0", "parameterization: 'x0' is not supported"),
        ("heads: 2", 'tokenizer_name: "WordpieceTokenizer"', "tokenizer_name: 'WordpieceTokenizer' is not supported"),
        ("model:", "model: [", "cannot be read as YAML"),
        ("unet_config:", "unet:", "unet_config: Field required"),
    ],
)
def test_what_a_configuration_gets_wrong(old: str, new: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"sd.yaml: .*{reason}|sd.yaml: {reason}"):
        open_ldm_checkpoint(*checkpoint(tmp_path, CONFIG.replace(old, new)))


def test_what_published_models_are() -> None:
    first = facts(SD1, None, None, "x")
    assert (first.heads, first.text_heads, first.prediction, first.quick_gelu) == (8, 12, "epsilon", True)
    second = facts(SD2, None, "2.1-v", "x")
    assert (second.heads, second.text_heads, second.quick_gelu) == ([5, 10, 20, 20], 16, False)
    assert (second.prediction, second.upcast) == ("v_prediction", True)
    assert facts(SD2, None, "2.0", "x").prediction == "epsilon"


@pytest.mark.parametrize(
    ("shapes", "version", "reason"),
    [
        (SD2, None, "give sd_version \\(2.0, 2.0-v, 2.1, 2.1-v\\)"),
        (SD2, "1.5", "version 1.5 was given; its arrays are those of a version 2"),
        (SD1, "2.1", "version 2.1 was given; its arrays are those of a version 1"),
        (SD1, "3", "'3' is not known; expected one of 1.5, 2.0"),
        (replace(SD1, unet=replace(SD1.unet, in_channels=9)), None, "a model for inpainting"),
        (replace(SD1, unet=replace(SD1.unet, context=1280)), None, "takes words of width 1280"),
        (replace(SD2, unet=replace(SD2.unet, linear=False)), None, "give original_config: its YAML file"),
    ],
)
def test_what_cannot_be_known(shapes: Shapes, version: str | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        facts(shapes, None, version, "x")


def test_a_version_that_contradicts_the_configuration(tmp_path: Path) -> None:
    ckpt, yaml = checkpoint(tmp_path, CONFIG_2)
    with pytest.raises(ConfigError, match="predicts epsilon; version 2.1-v was given"):
        open_ldm_checkpoint(ckpt, yaml, "2.1-v")
    with pytest.raises(ConfigError, match="nothing.ckpt: no such file"):
        open_ldm_checkpoint(tmp_path / "nothing.ckpt")
