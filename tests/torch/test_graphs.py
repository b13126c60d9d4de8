"""Passes that are replayed: as those that are not, whatever comes between two of them.

A CPU has no graphs; `tests.support.recorded` replays operators as they do, on the same memory and without Python.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError, RunError

from ..support import needs
from ..support.runs import PRIOR, prepared, small_run

pytestmark = needs.torch

LORA = {"use_lora": True, "rank": 2, "learning_rate": 2e-3}
UPDATES = 3
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, bf16, accumulated, with the prior": {"mixed_precision": "bf16", "gradient_accumulation_steps": 2, **PRIOR},
    "LoRA with dropout": LORA | {"lora_dropout": 0.3},
    "LoRA, bf16, autocast": LORA | {"mixed_precision": "bf16", "use_dora": True},
    "LoRA, int8, checkpointing": LORA | {"quantize_base": "int8", "gradient_checkpointing": True},
    "masked, channels last, no clipping": {"channels_last": True, "max_grad_norm": 0, "snr_gamma": 1.0},
    "core's optimizer": {"optimizer": "lion", "use_ema": True},
}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    from dreamcore.adapters.torch import backend

    from ..support.recorded import Recorder

    own = Recorder()
    monkeypatch.setattr(backend, "recorder", lambda *_: own)
    return own


def measured(model: Path, photos: Path, folder: Path, **settings: Any) -> np.ndarray:
    """Each row's error and the gradient's norm, [updates, rows + 1]; a held-out loss is asked for after the second."""
    with ExitStack() as stack:
        found = prepared(model, photos, folder, stack, train_batch_size=2, **settings)
        for update in range(UPDATES):
            batches = found.batcher.micro_batches(update)
            found.backend.train_step(batches, found.resolved.rates.at(update))
            if update == 1:
                found.backend.loss(batches[0])
        return np.array([[*result.errors, result.grad_norm] for result in found.backend.metrics()])


@pytest.mark.parametrize("case", CASES)
def test_losses_and_norms_are_those_without(
    case: str, recorder: Any, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    plain = measured(tiny_model, photos, tmp_path / "plain", **CASES[case])
    assert recorder.replays == 0
    own = measured(tiny_model, photos, tmp_path / "own", **CASES[case], cuda_graphs=True)
    passes = UPDATES * CASES[case].get("gradient_accumulation_steps", 1)
    assert (recorder.recorded, recorder.replays) == (1, passes)
    np.testing.assert_allclose(own, plain, 1e-6)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_other_families_are_told_more(
    family: str, recorder: Any, family_models: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    model = family_models(family)
    plain = measured(model, photos, tmp_path / "plain", **LORA)
    np.testing.assert_allclose(measured(model, photos, tmp_path / "own", **LORA, cuda_graphs=True), plain, 1e-6)
    assert recorder.recorded == 1 and recorder.replays == UPDATES


def test_each_shape_is_recorded_once(recorder: Any, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = {"gradient_accumulation_steps": 2, "aspect_ratio_buckets": True, "max_train_steps": 4}
    plain = small_run(tiny_model, photos, tmp_path / "plain", **settings)
    own = small_run(tiny_model, photos, tmp_path / "own", **settings, cuda_graphs=True)
    assert recorder.recorded < recorder.replays == 8
    assert [record["loss"] for record in own.metrics] == pytest.approx([record["loss"] for record in plain.metrics])


def test_weights_that_have_moved_are_recorded_anew(
    recorder: Any, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    """Else a graph would go on reading memory that is no longer theirs."""
    with ExitStack() as stack:
        found = prepared(tiny_model, photos, tmp_path / "run", stack, cuda_graphs=True)
        batches = found.batcher.micro_batches(0)
        found.backend.train_step(batches, found.resolved.rates.at(0))
        weight = next(found.backend.denoiser.parameters())
        weight.data = weight.data.clone()
        found.backend.train_step(batches, found.resolved.rates.at(1))
    assert recorder.recorded == 2


def test_what_cannot_be_captured_is_said(
    recorder: Any, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    def fails(body: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recorder, "record", fails)
    with pytest.raises(RunError, match=r"cuda_graphs: this model's passes could not be captured \(operation not"):
        measured(tiny_model, photos, tmp_path / "run", cuda_graphs=True)


def test_a_cpu_has_none(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(ConfigError, match=r"cuda_graphs: needs a CUDA card, and this is cpu"):
        prepared(tiny_model, photos, tmp_path / "run", stack, cuda_graphs=True, device="cpu")


def test_several_processes_have_none() -> None:
    import torch

    from dreamcore.adapters.torch.graphs import recorder

    with pytest.raises(ConfigError, match=r"cuda_graphs: 2 processes add up gradients within the passes"):
        recorder(torch.device("cuda"), 2)


TOGETHER: dict[str, dict[str, Any]] = {
    "placement cpu": {"placement": "cpu"},
    "blocks_to_swap": LORA | {"blocks_to_swap": 2},
    "shard optimizer": {"shard": "optimizer"},
    "fused_backward_pass": {"fused_backward_pass": True, "max_grad_norm": 0},
    "train_text_encoder": {"train_text_encoder": True},
    "train_text_encoder_ti": {"train_text_encoder_ti": True, "instance_prompt": "a TOK dog"},
    "lora_dropout and gradient_checkpointing": LORA | {"lora_dropout": 0.1, "gradient_checkpointing": True},
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_python_does_within_the_passes_is_refused_beside_it(
    name: str, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack, pytest.raises(ConfigError, match=f"cuda_graphs: given together with {name}, which"):
        prepared(tiny_model, photos, tmp_path / "run", stack, **TOGETHER[name], cuda_graphs=True)
