"""A loaded model answers as it does in diffusers and transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.registry import load_backend
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder

from ..crossing.cases import reference
from ..support import needs
from ..support.runs import configuration

pytestmark = needs.mindspore
VAE, TEXT = "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


def config_for(model: Path, **settings: Any) -> TrainConfig:
    return configuration(model, Path("photos"), Path("out"), backend="mindspore", **settings)


def load(model: Path, **settings: Any) -> Any:
    return load_backend("mindspore", ModelFolder.open(str(model)), config_for(model, **settings))


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_networks(name: str) -> None:
    import mindspore as ms

    wanted = np.load(reference(f"{name}.npz"))
    backend = load(reference("models") / name)
    mean, std = backend.encode_images(wanted["pixels"])
    np.testing.assert_allclose(mean, wanted["mean"], atol=2e-5)
    np.testing.assert_allclose(std, wanted["std"], rtol=2e-5)
    prompts = [str(p) for p in wanted["prompts"]]
    assert [" ".join(tokens) for tokens in backend.tokenize(prompts)] == list(wanted["tokens"])
    backend.set_prompts(prompts)
    words = backend.text.condition(np.arange(len(prompts))).prompt_embeds.asnumpy()
    np.testing.assert_allclose(words, wanted["words"], atol=1e-5)
    inputs = [ms.Tensor(wanted[n]) for n in ("latents", "timesteps", "words")]
    backend.residence.come("unet")
    answer = backend.denoiser(*inputs)[0].asnumpy()
    for row, t in enumerate(wanted["timesteps"]):  # a rounding of the timestep's frequencies counts t times
        np.testing.assert_allclose(answer[row], wanted["answer"][row], atol=1e-5 + 1e-7 * t)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mixed_precision": "fp16"}, "mixed_precision: fp16 needs an Ascend device"),
        ({"mixed_precision": "bf16"}, "mixed_precision: bf16 needs an Ascend device"),
        ({"device": "ascend:0"}, "device: 'ascend:0' cannot be used by this MindSpore"),
        ({"device": "cuda"}, "device: 'cuda' is none of MindSpore's; expected one of cpu"),
        ({"device": "cpu:1"}, "device: 'cpu:1' is none of MindSpore's"),
        ({"jit_level": "O0"}, "jit_level='O0': acts only in graph mode"),
    ],
)
def test_what_the_device_lacks_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(reference("models") / "sd1", **settings)


def test_pynative_may_be_given() -> None:
    model = reference("models") / "sd1"
    load_backend("mindspore", ModelFolder.open(str(model)), config_for(model, mode="pynative", jit_level="O1"))


def test_recomputation_with_dropout_is_refused() -> None:
    with pytest.raises(ConfigError, match="gradient_checkpointing: .*leave out lora_dropout"):
        load_for(use_lora=True, lora_dropout=0.1, gradient_checkpointing=True)


def load_for(**settings: Any) -> Any:
    model = reference("models") / "sd1"
    config = config_for(model, **settings)
    backend: Any = load_backend("mindspore", ModelFolder.open(str(model)), config)
    backend.prepare_training(config)
    backend.set_prompts(["a photo of sks dog"])
    return backend


def test_other_files_than_safetensors_are_refused(tmp_path: Path) -> None:
    model = Path(shutil.copytree(reference("models") / "sd1", tmp_path / "model"))
    (model / VAE).rename(model / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(
        ConfigError, match=r"diffusion_pytorch_model\.bin: pickled weights, which only the torch backend reads"
    ):
        load(model)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    model = Path(shutil.copytree(reference("models") / "sd1", tmp_path / "model"))
    file = model / TEXT
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"text_encoder/model\.safetensors: cannot be read"):
        load(model)


@pytest.mark.parametrize("name", ["unet", "text_encoder", "vae"])
def test_no_random_weights_are_drawn_for_a_network_that_is_filled(name: str) -> None:
    from dreamcore.adapters.mindspore import models

    model = ModelFolder.open(str(reference("models") / "sd1"))
    library, class_name = model.index[name]
    empty = models._build(model, name, library, class_name)
    assert all(weight.has_init for weight in empty.get_parameters() if weight.ndim > 1), "none has values yet"
    component = models.load_component(model, name)
    component.fill()
    assert not any(weight.has_init for weight in component.network.get_parameters())
