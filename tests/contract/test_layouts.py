"""Weights under the names of another trainer's layout: what its own scripts load is what the checkpoint holds.

Where images and logs lie, and whose files stay: `tests/runs/test_layouts.py`.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.backends.installed import installed_backends
from dreamcore.cli.main import main
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import read_lora
from dreamcore.hub.selection import published_files
from dreamcore.io.names import LORA_FACTORS_FILE, LORA_FILE
from dreamcore.models.folder import ModelFolder
from dreamcore.models.ldm_checkpoint import open_ldm_checkpoint
from dreamcore.models.mindone_lora import read_mindone_lora
from dreamcore.runs.checkpoint import list_checkpoints, verify
from dreamcore.track.metrics import read_lines
from dreamcore.training import run_report

from ..support import needs
from ..support.ldm import CONFIG
from ..support.runs import prepared, small_run
from ..support.tiny import draw_photos

BACKEND = installed_backends()[0]
BIN, UNET = "diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"
EPOCHS = {"resolution": 16, "max_train_steps": None, "checkpointing_epochs": 1}
"""Two photographs, one at a time: two updates an epoch."""
Models = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies under one name in every layout."""
    monkeypatch.setattr(run_report, "write_report", lambda folder: None)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "two", count=2)


@needs.torch
def test_structured_lora(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """Its command line, on its framework: a folder of its own in work_dirs, and in it what its users look at."""
    words = [f"--pretrained_model_name_or_path={tiny_model}", f"--instance_data_dir={photos}", "--resolution=32"]
    words += ["--instance_prompt=a sks dog", "--max_train_steps=2", "--validation_prompt=a dog", "--device=cpu"]
    words += ["--num_validation_images=2", "--validation_num_inference_steps=1", "--mixed_precision=no"]
    assert main(["main.py", *words, f"--output_dir={tmp_path / 'work_dirs'}"]) == 0
    (run,) = (tmp_path / "work_dirs").iterdir()
    assert re.fullmatch(r"20\d{6}_\d{6}", run.name)
    assert [f.name.partition(".")[0] for f in (run / "tensorboard").iterdir()] == ["events"]
    assert (run / "log.log").read_bytes() == (run / "log.txt").read_bytes()
    images = {f.name: f.read_bytes() for f in (run / "validation_images").iterdir()}
    assert images.keys() == {f"step_{step}_{k}.png" for step in (0, 2) for k in range(2)}
    assert images["step_2_1.png"] == (run / "samples" / "step-000002-1.png").read_bytes()
    assert (run / LORA_FILE).is_file() and (run / "checkpoint-2" / LORA_FILE).is_file()


def test_mindones_checkpoint_of_each_epoch(
    family_models: Models, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened again it is the checkpoint's denoiser beside the model's other networks, number for number."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, settings = family_models("ldm1"), EPOCHS | {"layout": "mindone-sd2", "checkpoints_total_limit": 2}
    run = small_run(model, two, tmp_path / "out", num_train_epochs=3, **settings)
    folder = run.folder / "ckpt" / "rank_0"
    assert sorted(f.name for f in folder.iterdir()) == ["sd-2.ckpt", "sd-3.ckpt"]
    (tmp_path / "sd.yaml").write_text(CONFIG)
    again = open_ldm_checkpoint(folder / "sd-2.ckpt", tmp_path / "sd.yaml")
    for component, source in {"unet": run.folder / "checkpoint-4", "vae": model, "text_encoder": model}.items():
        (found,), (wanted,) = ((f / component).glob("*.safetensors") for f in (again, source))
        assert_equal(load_file(found), load_file(wanted))
    trained = load_file(run.folder / "checkpoint-4" / UNET)
    assert not np.array_equal(trained["conv_in.weight"], load_file(model / UNET)["conv_in.weight"])


def test_mindones_lora_of_each_epoch(family_models: Models, two: Path, tmp_path: Path) -> None:
    """The factors' products, with their scale, for MindONE's own is 1."""
    model = family_models("ldm1")
    lora = {"use_lora": True, "rank": 2, "lora_alpha": 6, "train_text_encoder": True, "learning_rate": 0.05}
    run = small_run(model, two, tmp_path / "out", **EPOCHS, **lora, num_train_epochs=1, layout="mindone-sd2")
    (file,) = (run.folder / "ckpt" / "rank_0").iterdir()
    assert file.name == "sd-1.ckpt"
    read_mindone_lora(file, ModelFolder.open(str(model)), tmp_path / "again.safetensors")
    again, raw = read_lora(tmp_path / "again.safetensors"), load_file(run.folder / "checkpoint-2" / LORA_FACTORS_FILE)
    assert {pair.scale for pair in again.values()} == {1}
    assert {component for component, _ in again} == {"unet", "text_encoder"}
    assert len(raw) == 2 * len(again)
    for (component, layer), pair in again.items():
        product = 6 / 2 * raw[f"{component}.{layer}.lora_B.weight"] @ raw[f"{component}.{layer}.lora_A.weight"]
        assert np.abs(product).max() > 0
        np.testing.assert_allclose(pair.up @ pair.down, product, atol=1e-6, err_msg=layer)


@pytest.mark.parametrize("settings", [{}, {"use_lora": True}], ids=["full", "lora"])
def test_mindones_checkpoints_hold_stable_diffusion_alone(
    settings: dict[str, Any], family_models: Models, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the framework loads anything, and not at the first checkpoint."""
    monkeypatch.setattr("dreamcore.training.setup.load_suggested", None)
    words = "layout: mindone-sd2 .*Stable Diffusion 1 and 2.*StableDiffusionXLPipeline.*layout mindone"
    with pytest.raises(ConfigError, match=words):
        small_run(family_models("sdxl"), photos, tmp_path / "out", layout="mindone-sd2", **settings)
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_mindones_lora_has_the_attentions_alone(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = {"use_lora": True, "lora_layers": ["to_q", "ff.net.2"], "layout": "mindone-sd2"}
    with pytest.raises(ConfigError, match=r"lora_layers: ff\.net\.2: .*layout mindone-sd2"):
        small_run(tiny_model, photos, tmp_path / "out", **settings)
    assert not (tmp_path / "out" / "config.yaml").exists()


@pytest.fixture(scope="module")
def colossal(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in ColossalAI's layout, with its last two checkpoints; for copying, not for changing."""
    settings = {"layout": "colossalai", "checkpointing_steps": 1, "checkpoints_total_limit": 2, "learning_rate": 1e-3}
    return small_run(tiny_model, photos, tmp_path_factory.mktemp("colossal") / "out", **settings).folder


def test_colossalais_checkpoints_are_whole(colossal: Path) -> None:
    """Beside its own files each holds the denoiser as PyTorch's pickle; one that is too many goes with it."""
    assert [number for number, _ in list_checkpoints(colossal)] == [3, 4]
    for _, checkpoint in list_checkpoints(colossal):
        assert {BIN, "config.json"} <= verify(checkpoint)["files"].keys()
        assert (checkpoint / "config.json").read_bytes() == (checkpoint / "unet" / "config.json").read_bytes()
        with zipfile.ZipFile(checkpoint / BIN) as archive:
            stored = sorted(archive.read(name) for name in archive.namelist() if "/data/" in name)
        assert stored == sorted(array.tobytes() for array in load_file(checkpoint / UNET).values())


def test_what_is_published_is_the_model_alone(colossal: Path, tiny_model: Path) -> None:
    """Every file of the pipeline that training began with, and no second name of any."""
    files = [
        f for f in tiny_model.rglob("*") if f.is_file() and f.suffix != ".pdparams"
    ]  # which Paddle's reader leaves
    wanted = {f.relative_to(tiny_model).as_posix() for f in files}
    assert published_files(colossal, 4).keys() == wanted


def test_a_run_goes_on_from_one(colossal: Path, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(colossal, tmp_path / "broken"))
    shutil.rmtree(broken / "checkpoint-4")
    (broken / "model_index.json").unlink()
    settings = {"layout": "colossalai", "checkpointing_steps": 1, "checkpoints_total_limit": 1, "learning_rate": 1e-3}
    resumed = small_run(tiny_model, photos, broken, **settings, resume_from_checkpoint="latest")
    assert [number for number, _ in list_checkpoints(broken)] == [4]
    assert "no run has written" not in (broken / "log.txt").read_text()
    assert resumed.metrics[-1]["loss"] == read_lines(colossal / "metrics.jsonl")[-1]["loss"]
    assert_equal(load_file(broken / UNET), load_file(colossal / UNET))


def test_another_run_begins_with_its_weights(colossal: Path, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """From the .bin where PyTorch reads it, elsewhere from the checkpoint's own file."""
    checkpoint = colossal / "checkpoint-4"
    folder = checkpoint if BACKEND == "torch" else checkpoint / "unet"
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path, stack, pretrained_unet_name_or_path=str(folder))
        run.backend.export(tmp_path, averaged=False)
    wanted = load_file(checkpoint / UNET)
    assert_equal(load_file(tmp_path / UNET), wanted)
    assert not np.array_equal(wanted["conv_in.weight"], load_file(tiny_model / UNET)["conv_in.weight"])


@needs.torch
def test_torch_reads_its_weights(colossal: Path) -> None:
    import torch

    found = torch.load(colossal / "checkpoint-4" / BIN, weights_only=True)
    assert_equal({name: tensor.numpy() for name, tensor in found.items()}, load_file(colossal / UNET))


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
