"""Whatever stands in a model's JSON files: one ConfigError that names file and field, or a model that can be read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamcore.diffusion.schedule import ResolutionShift
from dreamcore.errors import ConfigError
from dreamcore.families import FamilyInputs
from dreamcore.models.folder import ModelFolder
from dreamcore.text.tokenizer import Tokenizer

FAMILIES = ("sd1", "sdxl", "sd3", "flux")
Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def copies(
    tiny_model: Path, family_models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """Models to damage, their weights linked."""
    root = tmp_path_factory.mktemp("fields")
    sources = {name: tiny_model if name == "sd1" else family_models(name) for name in FAMILIES}

    def link(source: str, target: str) -> object:
        return os.link(source, target) if source.endswith(".safetensors") else shutil.copyfile(source, target)

    yield {n: Path(shutil.copytree(source, root / n, copy_function=link)) for n, source in sources.items()}
    shutil.rmtree(root)


def read_all(folder: Path) -> None:
    """Everything that core reads of a model before a framework is imported."""
    model = ModelFolder.open(str(folder))
    schedule = model.schedule
    timesteps = np.array([0, schedule.num_train_timesteps - 1])
    for values in (schedule.network_times(timesteps), schedule.weight(timesteps)):
        assert not np.isnan(values).any()
    ResolutionShift(model.config("scheduler"), 64).factor(4096)
    for name in model.networks:
        _ = model.unused(name), model.variant_of(name)
    shift, scale = model.latents.shift, model.latents.scale
    assert np.isfinite(shift).all() and np.isfinite(scale).all() and (scale > 0).all()
    assert model.latent_channels > 0 and model.native_resolution > 0 and model.size_step > 0
    _ = model.words_width, model.absent_words, model.components, model.zeroes_empty, schedule.samplers
    _ = FamilyInputs(model.family, 0, None, model.token_side**2)
    assert Tokenizer.open(model).window > 0


def test_what_a_library_writes_into_a_configuration_changes_nothing(copies: dict[str, Path]) -> None:
    model = ModelFolder.open(str(copies["sd1"]))
    before = model.fingerprint
    model.config("unet")["use_flash_attention"] = True  # as mindone's from_config does with what it is given
    model.config("unet")["block_out_channels"].append(1)
    assert "use_flash_attention" not in model.config("unet")
    del model.__dict__["fingerprint"]  # to be made anew
    assert model.fingerprint == before


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)
SPECIAL = st.sampled_from([0, -1, 1, 2**70, 1e300, "0.00085", [[]], ["", ""], [None, "x"], {}, [], "", None])


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_contents_are_read_or_refused(family: str, copies: dict[str, Path], data: st.DataObject) -> None:
    folder = copies[family]
    file = data.draw(st.sampled_from(sorted(folder.rglob("*.json"))), label="file")
    before = file.read_text("utf-8")
    values = json.loads(before)
    if data.draw(st.integers(0, 9)) == 0:
        values = data.draw(VALUES | SPECIAL)
    else:
        name = data.draw(st.sampled_from(sorted(values)) | st.text(max_size=3), label="field")
        if data.draw(st.booleans(), label="taken away"):
            values.pop(name, None)
        else:
            values[name] = data.draw(VALUES | SPECIAL, label="value")
    file.write_text(json.dumps(values), "utf-8")
    try:
        read_all(folder)
    except ConfigError as error:
        assert file.name in str(error) or file.parent.name in str(error), error
        assert "\n" not in str(error) and len(str(error)) < 1000
    finally:
        file.write_text(before, "utf-8")


@pytest.fixture
def change(copies: dict[str, Path]) -> Iterator[Callable[[str, str, dict[str, Any]], Path]]:
    """Changes fields of one file of a family's model; ... takes one away."""
    kept: dict[Path, str | None] = {}

    def make(family: str, name: str, fields: dict[str, Any]) -> Path:
        file = copies[family] / name
        kept[file] = file.read_text("utf-8") if file.exists() else None
        values = json.loads(kept[file] or "{}") | fields
        file.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}), "utf-8")
        return copies[family]

    yield make
    for file, text in kept.items():
        file.unlink() if text is None else file.write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("family", "file", "fields", "words"),
    [
        ("sd1", "model_index.json", {"_class_name": ["diffusers", "X"]}, "_class_name: expected the name"),
        ("sd1", "model_index.json", {"vae": [None, None]}, "vae: expected"),
        ("sd1", "model_index.json", {"unet": "UNet"}, "unet: expected"),
        ("sd1", "model_index.json", {"tokenizer": ...}, "tokenizer: expected"),
        ("sd1", "model_index.json", {"../../x": ["diffusers", "X"]}, "expected the name of a folder"),
        ("sd1", "vae/config.json", {"scaling_factor": None}, "scaling_factor: .* received None"),
        ("sd1", "vae/config.json", {"block_out_channels": ...}, "block_out_channels: is missing"),
        ("sd1", "vae/config.json", {"latents_std": [1.0]}, "need 4 numbers"),
        ("sd1", "unet/config.json", {"norm_num_groups": "8"}, "norm_num_groups: .*integer; received '8'"),
        ("sd1", "scheduler/scheduler_config.json", {"beta_start": "0.00085"}, "beta_start: .*received '0.00085'"),
        ("sd1", "scheduler/scheduler_config.json", {"trained_betas": [2.0, 0.1]}, "make no noise schedule"),
        ("sd1", "tokenizer/tokenizer_config.json", {"model_max_length": "77"}, "model_max_length: .*received '77'"),
        ("sd1", "tokenizer/added_tokens.json", {"<new>": 564}, r"token of number 564, .* end at 563 .*vocab_size 564"),
        ("sd3", "transformer/config.json", {"joint_attention_dim": None}, "joint_attention_dim: is missing"),
        ("sd3", "text_encoder_3/config.json", {"d_model": 64}, "d_model: 64, while the denoiser takes .* width 96"),
        ("flux", "scheduler/scheduler_config.json", {"max_image_seq_len": 4}, "base_image_seq_len and max_image_seq"),
    ],
)
def test_file_and_field_are_named(
    family: str, file: str, fields: dict[str, Any], words: str, change: Any, copies: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        ModelFolder.open(str(change(family, file, fields)))
    assert str(copies[family] / file) in str(refused.value) or "pretrained" in str(refused.value)


def test_bounds_that_a_scheduler_leaves_open_are_null(change: Any) -> None:
    read_all(change("sdxl", "scheduler/scheduler_config.json", {"sigma_min": None, "sigma_max": None}))


def test_a_shard_index_without_metadata(copies: dict[str, Path], tmp_path: Path) -> None:
    model = Path(shutil.copytree(copies["sd1"], tmp_path / "model"))
    weights, name = model / "unet" / "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-0000{}-of-00002"
    for part in (1, 2):
        shutil.copyfile(weights, model / "unet" / f"{name.format(part)}.safetensors")
    weights.unlink()
    index = model / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text('{"weight_map": {}, "metadata": {}}')
    ModelFolder.open(str(model))
    index.write_text('{"weight_map": {}}')
    with pytest.raises(ConfigError, match=r"index\.json: metadata: is missing"):
        ModelFolder.open(str(model))


def test_a_window_that_no_tokenizer_says_ends_with_the_positions(change: Any) -> None:
    model = ModelFolder.open(str(change("sd1", "tokenizer/tokenizer_config.json", {"model_max_length": 1e30})))
    assert model.window(model.text_encoders[0]) == 77
