"""PyTorch's optimizers: an overflow, clipping inside the update, 8 bits, a fresh start."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError

from ..support import needs
from ..support.runs import numbers, small_run

pytestmark = needs.torch

CONFIG: dict[str, Any] = {"pretrained_model_name_or_path": "m", "instance_data_dir": "d", "instance_prompt": "p"}


def weights() -> Any:
    """Two matrices under published names, with gradients to be given."""
    import torch

    torch.manual_seed(0)
    return {"unet": {f"unet.{n}.weight": torch.nn.Parameter(torch.randn(70, 70)) for n in "ab"}}


def optimizer(parameters: Any, scaler: Any = None, **settings: Any) -> Any:
    import torch

    from dreamcore.adapters.torch.optim import Optimizer

    config = TrainConfig.from_mapping(CONFIG | settings)
    return Optimizer(parameters, config, scaler or torch.amp.GradScaler("cpu", enabled=False))


def update(made: Any, gradient: float, scale: float = 1.0) -> float:
    import torch

    for p in made.all:
        p.grad = torch.full_like(p, gradient * scale)
    return float(made.step({"unet": 1e-2}))


def test_an_overflow_leaves_everything_but_the_scale() -> None:
    import torch

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    made = optimizer(weights(), scaler)
    scaler.scale(torch.zeros(()))  # the scale is made with the first loss
    assert update(made, 0.5, 8.0) == pytest.approx(0.5 * np.sqrt(2 * 70 * 70)), "the norm is that of the true gradient"
    before = copy.deepcopy([p.detach() for p in made.all]), copy.deepcopy(list(made._optimizer.state.values()))
    assert update(made, float("inf")) == float("inf")
    assert all(torch.equal(a, b) for a, b in zip(before[0], made.all, strict=True))
    for old, new in zip(before[1], made._optimizer.state.values(), strict=True):
        assert all(torch.equal(old[k], new[k]) for k in ("step", "exp_avg", "exp_avg_sq"))
    assert scaler.get_scale() == 4.0
    assert np.isfinite(update(made, 0.5, 4.0))
    assert not torch.equal(before[0][0], made.all[0])
    assert {float(s["step"]) for s in made._optimizer.state.values()} == {2.0}


@pytest.mark.parametrize("max_norm", [0.25, 1e6])
def test_clipping_in_the_update_is_clipping_before_it(max_norm: float) -> None:
    import torch

    ours, plain = optimizer(weights(), max_grad_norm=max_norm, adam_epsilon=0.1), [*weights()["unet"].values()]
    adamw = torch.optim.AdamW(plain, lr=1e-2, eps=0.1, foreach=False)
    for gradient in (0.5, 1e-4, 3.0):  # clipped or not by its own norm; a large ε makes AdamW feel the size
        for p in plain:
            p.grad = torch.full_like(p, gradient)
        wanted = torch.nn.utils.clip_grad_norm_(plain, max_norm)
        adamw.step()
        assert update(ours, gradient) == pytest.approx(float(wanted), rel=1e-6)
    for a, b in zip(ours.all, plain, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6, atol=1e-7)


class EightBits:
    """bitsandbytes' AdamW8bit as far as its state goes: whole numbers and their scales, a count that is no tensor."""

    def __init__(self, groups: Any, **options: Any):
        self.param_groups, self.state = groups, {}

    def step(self, closure: Any = None) -> None:
        import torch

        for p in (p for group in self.param_groups for p in group["params"]):
            state = self.state.setdefault(p, {"step": 0, "qmap1": torch.linspace(-1, 1, 256)})
            state["step"] += 1
            state["state1"] = torch.full(p.shape, state["step"], dtype=torch.uint8)
            state["absmax1"] = p.detach().abs().max().reshape(1)

    def zero_grad(self, set_to_none: bool = True) -> None:
        return None


@pytest.fixture
def eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes on a machine that seems to have it."""
    from dreamcore.adapters.torch import optim

    made, inner = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    inner.AdamW8bit = EightBits  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", made)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", inner)
    real = optim._adamw_8bit
    monkeypatch.setattr(optim, "find_spec", lambda name: object())
    monkeypatch.setattr(optim, "_adamw_8bit", lambda device: real(__import__("torch").device("cuda")))


def test_eight_bits_need_a_gpu(eight_bits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dreamcore.adapters.torch import optim

    monkeypatch.undo()
    monkeypatch.setattr(optim, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="bitsandbytes needs a GPU, and this is cpu"):
        optim._adamw_8bit(torch.device("cpu"))


def test_the_state_of_eight_bits_is_kept_under_its_name(eight_bits: None, tmp_path: Path) -> None:
    import torch

    first = optimizer(weights(), use_8bit_adam=True)
    update(first, 0.5)
    first.save(tmp_path)
    with safe_open(tmp_path / "optimizer.safetensors", "pt") as file:
        assert json.loads(file.metadata()["counters"])["optimizer"] == "adamw8bit"
    again = optimizer(weights(), use_8bit_adam=True)
    again.load(tmp_path)
    for old, new in zip(first._optimizer.state.values(), again._optimizer.state.values(), strict=True):
        assert old.keys() == new.keys()
        assert new["step"] == 1
        assert all(torch.equal(old[k], new[k]) and old[k].dtype == new[k].dtype for k in old if k != "step")
    with pytest.raises(
        ConfigError, match="holds the state of adamw8bit, and this run's optimizer is adamw.*--reset_optimizer"
    ):
        optimizer(weights()).load(tmp_path)


def test_a_fresh_optimizer_on_request(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tiny_model, photos, tmp_path, max_train_steps=2, checkpointing_steps=2)
    file = tmp_path / "checkpoint-2" / "optimizer.safetensors"
    whole = Path(shutil.copytree(tmp_path, tmp_path.with_name("whole")))
    assert file.is_file()
    kept = small_run(tiny_model, photos, whole, max_train_steps=4, resume_from_checkpoint="latest")
    more = {"max_train_steps": 4, "resume_from_checkpoint": "latest", "optimizer": "lion"}
    with pytest.raises(ConfigError, match="optimizer is adamw, and this run's is lion; .* --reset_optimizer"):
        small_run(tiny_model, photos, tmp_path, **more)
    fresh = small_run(tiny_model, photos, tmp_path, **more, reset_optimizer=True)
    assert numbers(fresh)[2] == numbers(kept)[2], "the weights are the checkpoint's"
    assert numbers(fresh)[3]["loss"] != numbers(kept)[3]["loss"], "the moments are not"
    assert "an optimizer that starts afresh" in (tmp_path / "log.txt").read_text()
    assert "reset_optimizer" not in (tmp_path / "config.yaml").read_text()
