"""The rules over NumPy's arrays against the libraries that others train with: weights after 20 updates, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.matrix_rules import Muon

from ..contract.test_update import assert_close
from ..support import needs
from ..support.benches import Values, numbers
from ..support.trajectories import CASES, UPDATES, InNumPy, gradients, rates

pytestmark = needs.torch


class Library:
    """A library's optimizer of the same weights, a group for each component."""

    def __init__(self, case: dict[str, Any]):
        import torch

        self.case, self.weights = case, {n: torch.nn.Parameter(torch.from_numpy(a)) for n, a in numbers(0).items()}
        parts = {c: [w for n, w in self.weights.items() if n.startswith(c)] for c in ("unet", "text_encoder")}
        self.optimizers: list[Any] = MADE[case["optimizer"]](
            [{"params": params, "component": c, "lr": rates(case, UPDATES)[c]} for c, params in parts.items()],
            case,
            self,
        )

    def step(self, given: Values, lr: dict[str, float]) -> None:
        import torch

        for name, weight in self.weights.items():
            weight.grad = torch.from_numpy(given[name].copy()).reshape(weight.shape)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = None if self.case.get("adafactor_relative_step") else lr[group["component"]]
            with in_float32() if self.case["optimizer"] == "muon" else nullcontext(), no_grad():
                optimizer.step()

    def values(self) -> Values:
        return {n: w.detach().numpy().reshape(numbers(0)[n].shape).copy() for n, w in self.weights.items()}


def no_grad() -> Any:
    import torch

    return torch.no_grad()


@contextmanager
def in_float32() -> Iterator[None]:
    """Newton–Schulz iterations as they are without bfloat16's rounding."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
        yield


def betas(case: dict[str, Any], second: float = 0.999) -> tuple[float, float]:
    return case.get("adam_beta1", 0.9), second


def adamw(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    import torch

    return [torch.optim.AdamW(groups, weight_decay=1e-2)]


def schedule_free(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    from schedulefree import AdamWScheduleFree

    made = AdamWScheduleFree(groups, betas=betas(case), weight_decay=case.get("adam_weight_decay", 0.0))
    made.train()
    return [made]


def adafactor(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    from transformers import Adafactor

    relative = case.get("adafactor_relative_step", False)
    groups = [group | {"lr": None} if relative else group for group in groups]
    named = {"scale_parameter": case.get("adafactor_scale_parameter", False), "beta1": case.get("adam_beta1")}
    return [Adafactor(groups, relative_step=relative, weight_decay=case.get("adam_weight_decay", 0.0), **named)]


def came(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    from came_pytorch import CAME

    return [CAME(groups, lr=1.0, weight_decay=case.get("adam_weight_decay", 0.0))]


def lion(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    from lion_pytorch import Lion

    return [Lion(groups, betas=betas(case, 0.99), weight_decay=case["adam_weight_decay"])]


def muon(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    """Of matrices, as which PyTorch's wants convolutions to be given; AdamW of what is none."""
    import torch

    library.weights = {
        n: torch.nn.Parameter(w.detach().flatten(1) if w.ndim > 1 else w) for n, w in library.weights.items()
    }
    of = {c: [w for n, w in library.weights.items() if n.startswith(c)] for c in ("unet", "text_encoder")}
    matrices = [group | {"params": [w for w in of[group["component"]] if w.ndim > 1]} for group in groups]
    others = [group | {"params": [w for w in of[group["component"]] if w.ndim == 1]} for group in groups]
    return [
        torch.optim.Muon(matrices, weight_decay=1e-2, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([group for group in others if group["params"]], weight_decay=1e-2),
    ]


def prodigy(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    from prodigyopt import Prodigy

    options: dict[str, Any] = {"use_bias_correction": True, "safeguard_warmup": True, "decouple": True}
    options |= {n.removeprefix("prodigy_"): v for n, v in case.items() if n.startswith("prodigy_")}
    return [Prodigy(groups, weight_decay=case.get("adam_weight_decay", 0.0), **options)]


def sgd(groups: Any, case: dict[str, Any], library: Library) -> list[Any]:
    import torch

    return [torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=case["adam_weight_decay"])]


MADE: dict[str, Callable[[Any, dict[str, Any], Library], list[Any]]] = {
    "adamw": adamw,
    "adamw_schedulefree": schedule_free,
    "adafactor": adafactor,
    "came": came,
    "lion": lion,
    "muon": muon,
    "prodigy": prodigy,
    "sgd": sgd,
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_first_updates_are_the_librarys(case: dict[str, Any]) -> None:
    ours, theirs = InNumPy(case), Library(case)
    for update in range(UPDATES):
        for some in (ours, theirs):
            some.step(gradients(update), rates(case, update))
        assert_close(ours.values(), theirs.values())
    if case["optimizer"] == "prodigy":
        estimate = theirs.optimizers[0].param_groups[0]["d"]
        assert float(ours.rule.rate_factor()) == pytest.approx(float(estimate), rel=1e-5)
        assert estimate > 1.3 * case.get("prodigy_d0", 1e-6), "it has grown"
    if case["optimizer"] == "adamw_schedulefree":
        theirs.optimizers[0].eval()
        trained = ours.values()
        with ours.judged():
            assert_close(ours.values(), theirs.values())
            assert all(not np.array_equal(value, trained[name]) for name, value in ours.values().items())


def test_muon_in_bfloat16_is_near() -> None:
    """As PyTorch has it by itself: the iterations' rounding, and no more."""
    case: dict[str, Any] = {"optimizer": "muon"}
    ours, theirs = InNumPy(case), Library(case)
    given, lr = gradients(0), rates(case, 0)
    ours.step(given, lr)
    theirs.case = {"optimizer": "muon in bfloat16"}
    theirs.step(given, lr)
    for name, value in theirs.values().items():
        moved, wanted = ours.values()[name] - numbers(0)[name], value - numbers(0)[name]
        assert np.linalg.norm(moved - wanted) < 0.02 * np.linalg.norm(wanted), name


def test_whose_weights_muon_leaves_to_adamw() -> None:
    rule = InNumPy({"optimizer": "muon"}).rule
    assert isinstance(rule, Muon)
    matrices = ["unet.mid_block.resnets.0.conv1.weight", "unet.conv_in.lora_A.weight"]
    others = [
        "unet.conv_in.weight",
        "unet.conv_out.weight",
        "text_encoder.text_model.embeddings.token_embedding.weight",
    ]
    assert [rule.of(name, (4, 4)) is rule for name in matrices + others] == [True, True, False, False, False]
    assert rule.of("unet.conv1.bias", (4,)) is not rule
    assert math.isclose(rule.rest.epsilon, 1e-8)
