"""A loaded model answers as it does in diffusers and transformers, from either library's folder."""

from __future__ import annotations

import json
import pickle  # noqa: TID251  # to write what the reader must refuse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.registry import load_backend
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.formats.ppdiffusers import to_ppdiffusers
from dreamcore.formats.weights import is_linear
from dreamcore.models.folder import ModelFolder

from ..crossing.cases import reference
from ..support import needs
from ..support.runs import configuration

pytestmark = needs.paddle
VAE = "vae/diffusion_pytorch_model.safetensors"


def config_for(model: Path, **settings: Any) -> TrainConfig:
    return configuration(model, Path("photos"), Path("out"), backend="paddle", **{"device": "cpu"} | settings)


def load(model: Path, **settings: Any) -> Any:
    return load_backend("paddle", ModelFolder.open(str(model)), config_for(model, **settings))


def networks(backend: Any) -> dict[str, Any]:
    for name in backend.residence.components:
        backend.residence.come(name)
    return {name: component.network for name, component in backend.residence.components.items()}


def weights(model: Path) -> dict[str, np.ndarray]:
    """Every weight of a loaded model."""
    return {f"{c}.{n}": p.numpy() for c, net in networks(load(model)).items() for n, p in net.named_parameters()}


@pytest.fixture(scope="module")
def sd1() -> Path:
    return reference("models") / "sd1"


@pytest.fixture
def copy(sd1: Path, tmp_path: Path) -> Path:
    """A model to change."""
    return Path(shutil.copytree(sd1, tmp_path / "model"))


@pytest.mark.parametrize("name", ["sd1", "sd2"])
@pytest.mark.parametrize("layout", ["diffusers", "ppdiffusers"])
def test_networks(name: str, layout: str, tmp_path: Path) -> None:
    import paddle

    wanted = np.load(reference(f"{name}.npz"))
    model = Path(shutil.copytree(reference("models") / name, tmp_path / name))
    if layout == "ppdiffusers":
        to_ppdiffusers(model)
        assert not list(model.rglob("*.safetensors"))
    backend = load(model)
    mean, std = backend.encode_images(wanted["pixels"])
    np.testing.assert_allclose(mean, wanted["mean"], atol=1e-5)
    np.testing.assert_allclose(std, wanted["std"], rtol=1e-5)
    prompts = [str(p) for p in wanted["prompts"]]
    assert [" ".join(tokens) for tokens in backend.tokenize(prompts)] == list(wanted["tokens"])
    backend.set_prompts(prompts)
    words = backend.text.condition(np.arange(len(prompts))).prompt_embeds.numpy()
    np.testing.assert_allclose(words, wanted["words"], atol=5e-6)
    inputs = [paddle.to_tensor(wanted[n]) for n in ("latents", "timesteps", "words")]
    backend.residence.come("unet")
    answer = backend.denoiser(*inputs).sample.numpy()
    for row, t in enumerate(wanted["timesteps"]):  # a rounding of the timestep's frequencies counts t times
        np.testing.assert_allclose(answer[row], wanted["answer"][row], atol=1e-5 + 1e-7 * t)


def test_the_rule_for_linear_weights_holds(sd1: Path) -> None:
    """Core turns weights by their names; a square one turned by mistake would go unnoticed otherwise."""
    import paddle

    for network in networks(load(sd1)).values():
        layers = {f"{n}.weight": layer for n, layer in network.named_sublayers() if hasattr(layer, "weight")}
        for name, weight in network.named_parameters():
            by_type = name in layers and isinstance(layers[name], paddle.nn.Linear)
            assert is_linear(name, len(weight.shape)) == by_type, name


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_that_ppdiffusers_wrote(safe: bool, sd1: Path, tmp_path: Path) -> None:
    """As safetensors, of which only some say that they are Paddle's; or as pickled arrays."""
    import ppdiffusers

    pipeline = ppdiffusers.StableDiffusionPipeline.from_pretrained(
        str(sd1), from_diffusers=True, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    folder = tmp_path / "theirs"
    pipeline.save_pretrained(str(folder), safe_serialization=safe)
    assert len(list(folder.rglob("*.safetensors" if safe else "*.pdparams"))) == 3
    mine, theirs = weights(folder), weights(sd1)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[n], theirs[n]) for n in mine)


class Hostile:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self) -> Any:
        return Path.touch, (self.victim,)


def test_a_hostile_folder_runs_nothing(copy: Path, tmp_path: Path) -> None:
    to_ppdiffusers(copy)
    victim = tmp_path / "victim"
    (copy / "unet" / "model_state.pdparams").write_bytes(pickle.dumps({"conv_in.bias": Hostile(victim)}))
    with pytest.raises(ConfigError, match=r"unet/model_state\.pdparams: holds .*only arrays are read"):
        load(copy)
    assert not victim.exists()


def test_gaps_in_pdparams_are_named(copy: Path) -> None:
    to_ppdiffusers(copy)
    file = copy / "text_encoder" / "model_state.pdparams"
    content = pickle.loads(file.read_bytes())  # written two lines ago
    del content["text_model.final_layer_norm.weight"]
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(ConfigError, match=r"missing keys for CLIPTextModel: text_model\.final_layer_norm\.weight"):
        load(copy)


def test_pickled_weights_of_pytorch_are_not_opened(copy: Path) -> None:
    (copy / VAE).rename(copy / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"diffusion_pytorch_model\.bin: pickled weights"):
        load(copy)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mixed_precision": "fp16"}, "mixed_precision: fp16 needs a GPU"),
        ({"mixed_precision": "bf16"}, "mixed_precision: bf16 needs a GPU"),
        ({"device": "gpu"}, "device: 'gpu' cannot be used"),
        ({"device": "gpu:1"}, "device: 'gpu:1' cannot be used"),
        ({"device": "cuda"}, "device: 'cuda' cannot be used"),
        ({"device": "npu"}, "device: 'npu' is not known to Paddle"),
    ],
)
def test_what_the_device_lacks_is_refused(settings: dict[str, Any], words: str, sd1: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load(sd1, **settings)


def test_an_index_of_another_library_is_understood(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    index["text_encoder"][0] = "paddlenlp.transformers"
    (copy / "model_index.json").write_text(json.dumps(index))
    assert load(copy).text.encoders
    index["text_encoder"][0] = "elsewhere"
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="text_encoder is a elsewhere.CLIPTextModel"):
        load(copy)


def test_numpy_is_left_as_it_was() -> None:
    """ppdiffusers replaces `np.bool`; NumPy 2 cannot compare single numbers then."""
    import dreamcore.adapters.paddle.libraries

    assert dreamcore.adapters.paddle.libraries
    assert np.bool is np.bool_
    np.testing.assert_array_equal(np.float32(1), np.float32(1))


def test_paddlenlp_is_whole_for_those_who_ask_and_bare_for_the_others() -> None:
    program = (
        "import sys; import dreamcore.adapters.paddle.libraries; assert 'sklearn' not in sys.modules;"
        "from paddlenlp import Taskflow; import paddlenlp; print(Taskflow.__name__, paddlenlp.trainer.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["Taskflow", "paddlenlp.trainer"], done.stderr


@pytest.mark.parametrize("name", ["unet", "text_encoder", "vae"])
def test_no_random_weights_are_drawn_for_a_network_that_is_filled(name: str, sd1: Path) -> None:
    from dreamcore.adapters.paddle import models

    model = ModelFolder.open(str(sd1))
    library, class_name = model.index[name]
    empty = models._build(getattr(models.imported(models.LIBRARIES[library]), class_name), model.config(name))
    assert not any(weight._is_initialized() for weight in empty.parameters())
    component = models.load_component(model, name)
    component.fill()
    assert all(weight._is_initialized() for weight in component.network.parameters())
    component.empty()
    assert not any(weight._is_initialized() for weight in component.network.parameters())
