"""Graph mode, the default on Ascend, on the CPU: whole runs are what they are operator by operator."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.backends.registry import load_backend
from dreamcore.config.common import DeviceSettings
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.training.loop import Run

from ..crossing.cases import reference
from ..support import needs
from ..support.runs import configuration, numbers, small_run

pytestmark = [needs.mindspore, pytest.mark.timeout(600)]
LORA: dict[str, Any] = {"use_lora": True, "rank": 2, "train_text_encoder": True, "learning_rate": 1e-2}
LOOKING = {"validation_prompt": "a dog", "num_validation_images": 1, "validation_num_inference_steps": 2}


def assert_alike(one: Run, other: Run) -> None:
    assert len(one.metrics) == len(other.metrics)
    for mine, theirs in zip(one.metrics, other.metrics, strict=True):
        for name in ("loss", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    written = list(other.folder.glob("pytorch_*.safetensors")) or list(other.folder.glob("unet/*.safetensors"))
    for file in written:
        mine, theirs = load_file(one.folder / file.relative_to(other.folder)), load_file(file)
        assert mine.keys() == theirs.keys() and mine
        for name, array in theirs.items():
            np.testing.assert_allclose(mine[name], array, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_lora_with_pictures_and_a_resumption(photos: Path, tmp_path: Path) -> None:
    model = reference("models") / "sd1"
    settings = LORA | LOOKING | {"max_train_steps": 2, "checkpointing_steps": 1, "validation_steps": 1}
    plain = small_run(model, photos, tmp_path / "plain", **settings, mode="pynative")
    graph = small_run(model, photos, tmp_path / "graph", **settings, mode="graph", jit_level="O0")
    assert_alike(graph, plain)
    assert len(list(graph.folder.glob("samples/*.png"))) == 3
    broken = Path(shutil.copytree(graph.folder, tmp_path / "broken"))
    shutil.rmtree(broken / "checkpoint-2")
    (broken / "pytorch_lora_weights.safetensors").unlink()
    resumed = small_run(
        model, photos, broken, **settings, mode="graph", jit_level="O0", resume_from_checkpoint="latest"
    )
    assert numbers(resumed) == numbers(graph)


def test_full_fine_tuning(photos: Path, tmp_path: Path) -> None:
    model = reference("models") / "sdxl"
    runs = [small_run(model, photos, tmp_path / mode, max_train_steps=2, mode=mode) for mode in ("pynative", "graph")]
    assert_alike(*runs)
    assert "graph mode" in (runs[1].folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("sd3", {}, "mode: graph needs an Ascend device for Stable Diffusion 3"),
        ("flux", {}, "mode: graph needs an Ascend device for Flux"),
        ("sd1", LORA | {"lora_dropout": 0.1}, "lora_dropout: 0.1 in graph mode, .*use --mode pynative"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    family: str, settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamcore.adapters.mindspore import models

    monkeypatch.delattr(models, "load_component")
    model = reference("models") / family
    config = configuration(model, Path("photos"), Path("out"), mode="graph", **settings)
    with pytest.raises(ConfigError, match=words):
        load_backend("mindspore", ModelFolder.open(str(model)), config)


def test_the_device_is_named_by_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    import mindspore as ms

    from dreamcore.adapters.mindspore.backend import MindSporeBackend

    backend: Any = object.__new__(MindSporeBackend)
    backend.device, backend.graph = "Ascend", True
    monkeypatch.setattr(ms, "get_context", {"device_id": 3}.__getitem__)
    monkeypatch.setattr(ms.hal, "get_device_name", lambda index: f"Ascend910B{index}")
    assert backend.device_name() == "Ascend910B3 (ascend:3), graph mode"


def test_more_calls_within_calls_than_the_compilers_own_limit() -> None:
    import mindspore as ms

    from dreamcore.adapters.mindspore.devices import choose_device

    class Turns(ms.nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.turns = [(str(number), number) for number in range(700)]

        def construct(self, x: Any) -> Any:
            for _, number in self.turns:
                if number >= 0:
                    x = x + 1
            return x

    choose_device(DeviceSettings(device="cpu", mode="graph"))
    assert float(ms.jit(Turns())(ms.Tensor([0.0], ms.float32))[0]) == 700
