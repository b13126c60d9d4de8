"""Gradient checkpointing on every family that the backend runs: the same updates, with layers computed twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.protocol import StepResult

from ..support.runs import prepared
from .test_families import RUNS

BACKEND = installed_backends()[0]
FAMILIES = ["sd1", *(name for name in RUNS if name != "if2")]  # whose UNet is if1's
LORA = {"use_lora": True, "rank": 2, "learning_rate": 1e-2, "train_text_encoder": True}
METHODS: dict[str, dict[str, Any]] = {
    "lora": LORA if BACKEND == "mindspore" else LORA | {"lora_dropout": 0.2},  # which MindSpore refuses to drop twice
    "full": {"train_text_encoder": True},
}
LAYER = dict.fromkeys(("sd1", "sdxl", "if1"), "up_blocks.1.resnets.0.conv1")
"""A layer of the denoiser that is recomputed; of transformers, one of their first block."""


def two_updates(model: Path, photos: Path, output: Path, family: str, **settings: Any) -> tuple[list[StepResult], int]:
    """What they measured, and how often a layer was called."""
    with ExitStack() as stack:
        run = prepared(model, photos, output, stack, **settings)
        backend: Any = run.backend
        names = dict(getattr(backend.denoiser, NAMES[BACKEND])())
        calls: list[int] = []
        layer = names[LAYER.get(family, "transformer_blocks.0.attn.to_q")]
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
        for update in range(2):
            batches, _ = run.batcher.update(update)
            backend.train_step(batches, run.resolved.rates.at(update))
        return backend.metrics(), len(calls)


NAMES = {"torch": "named_modules", "paddle": "named_sublayers", "mindspore": "cells_and_names"}


@pytest.mark.parametrize("method", METHODS if BACKEND != "mindspore" else ["lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_updates(
    family: str, method: str, tiny_model: Path, family_models: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    model = tiny_model if family == "sd1" else family_models(family)
    settings = METHODS[method] | ({"train_text_encoder": False} if family == "if1" else {})
    plain, once = two_updates(model, photos, tmp_path / "plain", family, **settings)
    again, twice = two_updates(model, photos, tmp_path / "again", family, **settings, gradient_checkpointing=True)
    assert twice == 2 * once > 0
    for one, other in zip(plain, again, strict=True):
        assert other.errors == pytest.approx(one.errors, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    assert plain[1].errors != pytest.approx(plain[0].errors, rel=1e-6)
