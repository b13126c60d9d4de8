"""A base in fewer bits: what it computes with is what NumPy makes of the files' weights, and all else is as ever."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from dreamcore.backends.quantization import quantised, stored_bytes
from dreamcore.backends.registry import load_backend
from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.config.common import ModelSettings
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.training.loop import Run

from ..support import needs
from ..support.quantized import as_kept
from ..support.runs import PRIOR, numbers, small_run

pytestmark = needs.torch

LORA: dict[str, Any] = {"use_lora": True, "learning_rate": 1e-3, "max_train_steps": 2}
FULLER = PRIOR | {"gradient_accumulation_steps": 2, "gradient_checkpointing": True, "use_ema": True}
METHODS = ("int8", "fp8", "nf4")
AWAY = {"int8": 0.01, "nf4": 0.15}
"""By how much, of itself, a loss may differ from the one on whole weights."""


def rounded(model: Path, method: str, to: Path, components: tuple[str, ...]) -> Path:
    """A copy of a model whose files hold what is left of their weights."""
    shutil.copytree(model, to)
    for component in components:
        for file in (to / component).glob("*.safetensors"):
            arrays = load_file(file)
            kept = {n: as_kept(a, method) for n, a in arrays.items() if quantised(n, a.shape)}
            assert kept, component
            save_file(arrays | kept, file, metadata={"format": "pt"})
    return to


def losses(run: Run) -> np.ndarray:
    return np.array([[record["loss"], record["grad_norm"]] for record in numbers(run)])


@pytest.mark.parametrize("method", METHODS)
def test_layers_compute_with_what_is_left(method: str) -> None:
    """Answers and gradients of a product and a convolution, of shapes that fill no block."""
    import torch

    from dreamcore.adapters.torch.quantization import quantize

    draw = np.random.default_rng(0)
    layers = [torch.nn.Linear(33, 7), torch.nn.Conv2d(5, 6, 3, stride=2, padding=1, dilation=2, bias=False)]
    for layer, x in zip(layers, (torch.randn(2, 4, 33), torch.randn(2, 5, 9, 11)), strict=True):
        weight = draw.normal(0, 0.1, tuple(layer.weight.shape)).astype(np.float32)
        weight[0] = 0
        plain = torch.nn.ModuleList([layer])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(as_kept(weight, method)))
        wanted = layer(x.requires_grad_())
        (gradient,) = torch.autograd.grad(wanted.square().sum(), x)
        found = quantize(plain, lambda name: f"blocks.{name}.layer", method)  # type: ignore[arg-type]
        assert list(found) == ["blocks.0.layer.weight"]
        found["blocks.0.layer.weight"].hold(torch.from_numpy(weight))
        answer = layer(x)
        np.testing.assert_allclose(answer.detach(), wanted.detach(), atol=1e-6)
        np.testing.assert_allclose(torch.autograd.grad(answer.square().sum(), x)[0], gradient, atol=1e-5)
        np.testing.assert_allclose(layer.weight, as_kept(weight, method), atol=1e-7)
        assert not layer.state_dict().keys() - {"weight", "bias"}, "files have no other names"


@pytest.fixture(scope="module")
def whole(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On weights as they are."""
    return small_run(tiny_model, photos, tmp_path_factory.mktemp("whole"), **LORA)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_that_on_what_is_left(method: str, whole: Run, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """With class images, which the same base makes, accumulation, recomputation and an average."""
    settings = LORA | (FULLER if method == "fp8" else {})
    on = rounded(tiny_model, method, tmp_path / "rounded", ("unet",))
    wanted = small_run(on, photos, tmp_path / "wanted", **settings)
    run = small_run(tiny_model, photos, tmp_path / "run", **settings, quantize_base=method)
    np.testing.assert_allclose(losses(run), losses(wanted), rtol=2e-5)
    if settings == LORA:
        assert not np.allclose(losses(run), losses(whole), rtol=1e-4)
        np.testing.assert_allclose(losses(run)[:, 0], losses(whole)[:, 0], rtol=AWAY[method])
    files = [load_file(one.folder / "pytorch_lora_weights.safetensors") for one in (run, wanted, whole)]
    assert {n: (a.shape, a.dtype) for n, a in files[0].items()} == {n: (a.shape, a.dtype) for n, a in files[2].items()}
    for name, array in files[0].items():
        assert np.linalg.norm(array - files[1][name]) <= 0.01 * np.linalg.norm(files[1][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"use_dora": True}, {"lora_method": "pissa"}, {"lora_method": "lokr"}])
def test_other_factors(more: dict[str, Any], tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """Those that begin with the weight, or are measured by it, take what is left of it."""
    on = rounded(tiny_model, "nf4", tmp_path / "rounded", ("unet",))
    settings = LORA | more
    wanted = small_run(on, photos, tmp_path / "wanted", **settings)
    run = small_run(tiny_model, photos, tmp_path / "run", **settings, quantize_base="nf4")
    np.testing.assert_allclose(losses(run), losses(wanted), rtol=2e-5)


def test_a_transformer_and_its_words(family_models: Callable[[str], Path], photos: Path, tmp_path: Path) -> None:
    """Flux with CLIP and T5, in bfloat16: the product rounds as the whole weight's would."""
    model = family_models("flux")
    words = ("text_encoder", "text_encoder_2")
    on = rounded(rounded(model, "nf4", tmp_path / "a", ("transformer",)), "int8", tmp_path / "rounded", words)
    settings = LORA | {"mixed_precision": "bf16"}
    wanted = small_run(on, photos, tmp_path / "wanted", **settings)
    fewer = {"quantize_base": "nf4", "quantize_text_encoders": "int8"}
    run = small_run(model, photos, tmp_path / "run", **settings, **fewer)
    np.testing.assert_allclose(losses(run)[:, 0], losses(wanted)[:, 0], rtol=5e-3)


def test_resuming(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = LORA | {"quantize_base": "nf4"}
    whole = small_run(tiny_model, photos, tmp_path / "whole", **settings | {"max_train_steps": 4})
    small_run(tiny_model, photos, tmp_path / "run", **settings)
    on = settings | {"max_train_steps": 4, "resume_from_checkpoint": "latest"}
    for other in ("int8", None):
        with pytest.raises(ConfigError, match=f"quantize_base: was 'nf4', is now {other!r}"):
            small_run(tiny_model, photos, tmp_path / "run", **on | {"quantize_base": other})
    resumed = small_run(tiny_model, photos, tmp_path / "run", **on)
    assert numbers(resumed)[-2:] == numbers(whole)[-2:]


def test_images(tiny_model: Path, tmp_path: Path) -> None:
    def picture(model: Path, folder: str, **settings: Any) -> np.ndarray:
        given = {"pretrained_model_name_or_path": str(model), "prompt": "a dog", "num_inference_steps": 3}
        config = GenerateConfig.from_mapping(given | settings | {"output_dir": str(tmp_path / folder)})
        return np.asarray(Image.open(generate(config)[0])).astype(int)

    on = rounded(tiny_model, "int8", tmp_path / "rounded", ("unet", "text_encoder"))
    fewer = {"quantize_base": "int8", "quantize_text_encoders": "int8"}
    assert np.abs(picture(tiny_model, "fewer", **fewer) - picture(on, "wanted")).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_no_component_is_there_whole_while_it_comes(method: str, tiny_model: Path) -> None:
    """Of a half-filled network, what has come has its few bits; and all goes again."""
    given = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a dog", "quantize_base": method}
    settings: ModelSettings = GenerateConfig.from_mapping(given)
    model = ModelFolder.open(str(tiny_model))
    backend: Any = load_backend("torch", model, settings)
    component = backend.residence.components["unet"]

    def held() -> int:
        tensors = [*component.network.parameters(), *component.network.buffers()]
        return sum(t.untyped_storage().nbytes() for t in tensors if t.untyped_storage().nbytes() == t.nbytes)

    (file,) = model.weight_files("unet")
    shapes = {name: array.shape for name, array in load_file(file).items()}
    wanted = sum(stored_bytes(s, method) if quantised(n, s) else 4 * int(np.prod(s)) for n, s in shapes.items())
    read, most = component._source.read, [0]

    def watched() -> Any:
        for each in read():
            most[0] = max(most[0], held())
            yield each

    component._source.read = watched
    backend.residence.come("unet")
    assert backend.residence.bytes["unet"] == wanted == held() > most[0] > 0.9 * wanted
    backend.residence.leave("unet")
    assert held() < wanted / 100
