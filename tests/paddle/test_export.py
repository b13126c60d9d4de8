"""What a run leaves loads in ppdiffusers' own pipeline, in either layout, and gives the images of our own sampler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.formats.ppdiffusers import to_ppdiffusers
from dreamcore.io.names import PADDLE_LORA_FILE
from dreamcore.training.loop import Run

from ..crossing.cases import reference
from ..support import images as pictures
from ..support import needs
from ..support.images import distance, ours
from ..support.runs import numbers, small_run

pytestmark = needs.paddle


@pytest.fixture(scope="module")
def full(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return small_run(
        tiny_model, photos, tmp_path_factory.mktemp("full"), train_text_encoder=True, learning_rate=1e-3, device="cpu"
    )


@pytest.fixture(scope="module")
def full_pp(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, begun with a folder of ppdiffusers' and exported as one."""
    model = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "pp"))
    to_ppdiffusers(model)
    folder = tmp_path_factory.mktemp("full_pp")
    settings = {"train_text_encoder": True, "learning_rate": 1e-3, "checkpointing_steps": 4, "device": "cpu"}
    return small_run(model, photos, folder, **settings, export_format="ppdiffusers")


@pytest.fixture(scope="module")
def lora(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Alpha is not the rank, and the factors are large enough to show.  Of the UNet alone: ppdiffusers 0.29 loads no
    factors of a text encoder, for a deprecation of its own has become an error."""
    settings = {"use_lora": True, "rank": 3, "lora_alpha": 12, "learning_rate": 0.05}
    folder = tmp_path_factory.mktemp("lora")
    return small_run(tiny_model, photos, folder, **settings, export_format="ppdiffusers", device="cpu")


def theirs(loaded: Any, model: Path) -> np.ndarray:
    import paddle
    import ppdiffusers

    return pictures.theirs(ppdiffusers, loaded, model, paddle.to_tensor)


def pipeline(folder: Path, **options: Any) -> Any:
    from ppdiffusers import StableDiffusionPipeline

    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline.from_pretrained(str(folder), **nothing, **options)


def test_diffusers_layout_in_ppdiffusers(full: Run, tiny_model: Path, tmp_path: Path) -> None:
    mine = ours(full.folder, tmp_path / "mine")
    assert distance(mine, theirs(pipeline(full.folder, from_diffusers=True), full.folder)) <= 1
    assert distance(mine, ours(tiny_model, tmp_path / "base")) > 8


def test_ppdiffusers_layout_in_ppdiffusers(full: Run, full_pp: Run, tmp_path: Path) -> None:
    assert numbers(full_pp) == numbers(full), "the layout of the model's folder makes no difference"
    assert len(list(full_pp.folder.glob("*/model_state.pdparams"))) == 3
    assert not list(full_pp.folder.glob("[!c]*/*.safetensors"))
    mine = ours(full_pp.folder, tmp_path / "mine")
    assert distance(mine, theirs(pipeline(full_pp.folder), full_pp.folder)) <= 1
    assert distance(mine, ours(full.folder, tmp_path / "other")) == 0


def test_a_ppdiffusers_model_comes_back_as_diffusers(
    full_pp: Run, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    """Name for name, bit for bit what a model in diffusers' layout gives; that one PyTorch reads in crossing tests."""
    settings = {"max_train_steps": 1, "device": "cpu"}
    back = small_run(full_pp.folder, photos, tmp_path / "back", **settings)
    start = tmp_path / "start"
    shutil.copytree(tiny_model, start)
    for name in ("unet", "text_encoder"):
        shutil.rmtree(start / name)
        shutil.copytree(full_pp.folder / "checkpoint-4" / name, start / name)
    same = small_run(start, photos, tmp_path / "same", **settings)
    assert numbers(back) == numbers(same)
    index, wanted = (json.loads((run.folder / "model_index.json").read_text()) for run in (back, same))
    assert index == wanted
    for file in sorted(same.folder.glob("[!c]*/*.safetensors")):
        mine, other = load_file(back.folder / file.relative_to(same.folder)), load_file(file)
        assert mine.keys() == other.keys()
        for name, array in other.items():
            np.testing.assert_array_equal(mine[name], array)


def test_the_lora_files_in_ppdiffusers(lora: Run, tiny_model: Path, tmp_path: Path) -> None:
    """Ours for everyone, and ppdiffusers' own beside it."""
    mine = ours(tiny_model, tmp_path / "mine", lora=str(lora.folder))
    assert distance(mine, ours(tiny_model, tmp_path / "base")) > 8
    own = ours(tiny_model, tmp_path / "own", lora=str(lora.folder / PADDLE_LORA_FILE))
    assert distance(mine, own) == 0
    for options in ({"from_diffusers": True}, {}):
        loaded = pipeline(tiny_model, from_diffusers=True)
        loaded.load_lora_weights(str(lora.folder), **options)
        assert distance(mine, theirs(loaded, tiny_model)) <= 1, options


def test_the_scale_of_a_lora(lora: Run, tiny_model: Path, tmp_path: Path) -> None:
    none = ours(tiny_model, tmp_path / "none", lora=str(lora.folder), lora_scale=0.0)
    assert distance(none, ours(tiny_model, tmp_path / "base")) == 0


def test_a_lora_of_another_model_is_refused(lora: Run, tmp_path: Path) -> None:
    from dreamcore.errors import ConfigError

    with pytest.raises(ConfigError, match=r"lora: .*factors .* do not fit|has no such layer"):
        ours(reference("models") / "sd2", tmp_path / "mine", lora=str(wider(lora, tmp_path)))


def wider(lora: Run, folder: Path) -> Path:
    """A LoRA file with one factor of another width."""
    from dreamcore.formats.weights import write_safetensors
    from dreamcore.io.names import LORA_FILE

    arrays = dict(load_file(lora.folder / LORA_FILE))
    name = next(n for n in arrays if n.endswith("lora.down.weight"))
    arrays[name] = np.concatenate([arrays[name], arrays[name]], axis=1)
    write_safetensors(folder / "wide.safetensors", arrays)
    return folder / "wide.safetensors"
