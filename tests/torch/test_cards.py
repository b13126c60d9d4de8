"""What only a GPU has, as far as a CPU can show it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError, LackingError
from dreamcore.models.folder import ModelFolder
from dreamcore.training.latent_cache import encoder_identity

from ..support import needs

pytestmark = needs.torch


def test_bf16_that_is_imitated_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dreamcore.adapters.torch.precision import check_precision

    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(LackingError, match="mixed_precision: T4 lacks bf16"):
        check_precision("bf16", torch.device("cuda:1"))


def test_the_card_that_is_asked_for_is_the_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dreamcore.adapters.torch import launch

    chosen: list[Any] = []

    def there_is_none(*_: Any, device: Any) -> None:
        assert chosen == [torch.device("cuda:1")] == [device], "before anything is made there"
        raise RuntimeError("no card here")

    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "empty", there_is_none)
    with pytest.raises(ConfigError, match="no card here"):
        launch.choose_device("cuda:1")


def test_latents_of_one_card_are_those_of_another_of_its_kind(tiny_model: Path) -> None:
    model = ModelFolder.open(str(tiny_model))
    names = [encoder_identity(model, "torch", name) for name in ("H100 (cuda:0)", "H100 (cuda:1)", "A100 (cuda:0)")]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("name", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
def test_transformers_of_either_name_recomputes(name: str) -> None:
    from dreamcore.adapters.torch.models import recompute

    asked: list[Any] = []
    recompute(SimpleNamespace(modules=list, train=lambda: asked.append("train"), **{name: asked.append}))  # type: ignore[arg-type]
    assert asked == [{"use_reentrant": False, "preserve_rng_state": False}, "train"]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_generator_s_state_is_kept_where_something_is_drawn(dropout: float) -> None:
    import diffusers
    import torch

    from dreamcore.adapters.torch.models import recompute

    class Network(diffusers.ModelMixin):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = torch.nn.Dropout(dropout)

        def enable_gradient_checkpointing(self, gradient_checkpointing_func: Any = None) -> None:
            self.asked = gradient_checkpointing_func.keywords

    network = Network()
    recompute(network)
    assert network.asked == {"use_reentrant": False, "preserve_rng_state": dropout > 0}


def test_averages_and_weights_change_places() -> None:
    import torch

    from dreamcore.adapters.torch.ema import EMA

    weights = {name: torch.nn.Parameter(torch.randn(3)) for name in "ab"}
    ema = EMA(weights, 0.5)
    averages = {name: value.detach().clone() for name, value in weights.items()}
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(1)
    with ema.in_place():
        assert all(torch.equal(weights[name], averages[name]) for name in weights)
        assert all(torch.equal(kept, averages[name] + 1) for name, kept in zip("ab", ema._averages, strict=True))
    for name, array in ema.to_arrays(ema._averages).items():
        np.testing.assert_array_equal(array, averages[name].numpy())
        assert torch.equal(weights[name], averages[name] + 1)
