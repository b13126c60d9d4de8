"""Precision, layouts, compilation: what changes nothing, what is counted, what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from dreamcore.errors import ConfigError, RunError
from dreamcore.io.names import CLASS_IMAGES

from ..support import needs
from ..support.runs import PRIOR, numbers, small_run

pytestmark = needs.torch


def overflowing(monkeypatch: pytest.MonkeyPatch, init_scale: float, growth: int = 2000) -> None:
    """Let fp16 run on this CPU, with a loss scale that is too large at first."""
    import torch

    from dreamcore.adapters.torch import backend, precision

    monkeypatch.setattr(backend, "check_precision", lambda name, *_: precision.DTYPES[name])
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, init_scale, enabled=enabled))


def test_skipped_updates_count_and_are_said(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing(monkeypatch, 2.0**127)
    run = small_run(tiny_model, photos, tmp_path, mixed_precision="fp16", max_train_steps=3, logging_steps=2)
    assert [m.get("skipped") for m in run.metrics] == [1, 1, 1]
    assert run.updates == 3, "a skipped update is one of the run's"
    log = (tmp_path / "log.txt").read_text()
    said = "not applied, for its gradient overflows fp16; the loss scale is lowered"
    assert f"WARNING update 1: {said}; metrics.jsonl marks each such update as skipped" in log
    assert f"INFO    update 3: {said} (3 skipped so far)" in log
    assert log.count("WARNING") == 1, "a warning is said once"
    name = "unet/diffusion_pytorch_model.safetensors"
    before, after = load_file(tiny_model / name), load_file(tmp_path / name)
    assert all((before[k] == after[k]).all() for k in before), "nothing was learned"


def test_an_overflow_without_end_stops_the_run(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamcore.training import metrics_recorder as metrics

    monkeypatch.setattr(metrics, "OVERFLOWS", 2)
    overflowing(monkeypatch, 2.0**127)
    with pytest.raises(RunError, match="overflowed fp16 in 2 updates in a row"):
        small_run(tiny_model, photos, tmp_path, mixed_precision="fp16")


def test_fp16_trains_as_float32_does(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing(monkeypatch, 2.0**10)
    plain = small_run(tiny_model, photos, tmp_path / "a", max_train_steps=2)
    half = small_run(tiny_model, photos, tmp_path / "b", max_train_steps=2, mixed_precision="fp16")
    for one, other in zip(plain.metrics, half.metrics, strict=True):
        assert "skipped" not in other
        for name in ("loss", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-2), name


def test_a_loss_scale_leaves_one_update_a_batch_accumulated_and_clipped(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW's moments tell: stepped twice a batch, from one micro-batch alone, or not clipped, they are others."""
    overflowing(monkeypatch, 2.0**10)
    settings: dict[str, Any] = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "checkpointing_steps": 2}
    settings |= {"max_train_steps": 2, "learning_rate": 1e-6}
    steps, clipped = [], {}
    for precision in ("no", "fp16"):
        run = small_run(tiny_model, photos, tmp_path / precision, **settings, mixed_precision=precision)
        assert all(record["grad_norm"] > 1.0 for record in run.metrics), "there is something to clip"
        file = tmp_path / precision / "checkpoint-2" / "optimizer.safetensors"
        with safe_open(file, "np") as opened:
            steps.append(json.loads(opened.metadata()["counters"])["step"])
        clipped[precision] = load_file(file)
    assert steps == [2, 2]
    for moment in ("exp_avg", "exp_avg_sq"):
        one, other = (
            np.concatenate([a.ravel() for n, a in sorted(moments.items()) if n.endswith(f".{moment}")])
            for moments in clipped.values()
        )
        assert np.linalg.norm(other - one) < 0.05 * np.linalg.norm(one), moment
    # The sum of two gradients of norm 0.5, weighed 0.09 and 0.1, which lie some way apart
    assert (
        0.02 < np.linalg.norm([np.linalg.norm(a) for n, a in clipped["fp16"].items() if n.endswith(".exp_avg")]) < 0.096
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mixed_precision": "fp16"}, "mixed_precision: fp16 needs a GPU"),
        ({"allow_tf32": True}, "allow_tf32: TensorFloat-32 is NVIDIA GPUs'"),
        ({"use_8bit_adam": True}, "use_8bit_adam: needs the package bitsandbytes"),
        (PRIOR | {"prior_generation_precision": "fp16"}, "prior_generation_precision: fp16 needs a GPU"),
        (
            PRIOR | {"prior_generation_precision": "fp32", "mixed_precision": "bf16", "use_lora": True},
            "prior_generation_precision: fp32, while LoRA with mixed_precision holds",
        ),
    ],
)
def test_what_a_cpu_cannot_do_is_refused(
    settings: dict[str, Any], words: str, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        small_run(tiny_model, photos, tmp_path, **settings)
    assert not (tmp_path / "config.yaml").exists()


def test_class_images_have_a_precision_of_their_own(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = PRIOR | {"num_class_images": 1, "max_train_steps": 1}
    runs = {
        "fp32": small_run(tiny_model, photos, tmp_path / "fp32", **settings),
        "bf16": small_run(tiny_model, photos, tmp_path / "bf16", **settings, prior_generation_precision="bf16"),
    }
    pictures = {name: next((r.folder / "class_images").glob("*.png")).read_bytes() for name, r in runs.items()}
    assert pictures["fp32"] != pictures["bf16"]
    assert json.loads((tmp_path / "bf16" / "class_images" / CLASS_IMAGES).read_text())["images"]
    again = small_run(
        tiny_model, photos, tmp_path / "again", **settings, class_data_dir=str(tmp_path / "bf16" / "class_images")
    )
    assert numbers(again) == numbers(runs["bf16"]), "the words' embeddings for training are not those for the images"


def test_images_are_encoded_in_16_bits_where_that_is_near_enough(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {"max_train_steps": 2, "latent_cache_dir": str(tmp_path / "kept")}
    whole = small_run(tiny_model, photos, tmp_path / "whole", **kept)
    files = len(list((tmp_path / "kept").rglob("*.safetensors")))
    half = small_run(tiny_model, photos, tmp_path / "half", **kept, vae_precision="bf16")
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 2 * files, "kept latents are of their precision"
    losses = [np.array([record["loss"] for record in run.metrics]) for run in (whole, half)]
    assert (losses[0] != losses[1]).all() and np.allclose(*losses, rtol=0.02)
    monkeypatch.setattr("dreamcore.adapters.torch.precision.MOST", 1e-5)
    with pytest.raises(ConfigError, match=r"vae_precision: in bf16 .* more than 0.0 %; leave it out"):
        small_run(tiny_model, photos, tmp_path / "refused", max_train_steps=2, vae_precision="bf16")


def test_channels_last_changes_no_number(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"checkpointing_steps": 2, "use_ema": True}
    plain = small_run(tiny_model, photos, tmp_path / "a", **settings)
    last = small_run(tiny_model, photos, tmp_path / "b", **settings, channels_last=True)
    for one, other in zip(plain.metrics, last.metrics, strict=True):
        for name in ("loss", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-5), name
    shutil.rmtree(tmp_path / "b" / "checkpoint-4")
    (tmp_path / "b" / "model_index.json").unlink()
    resumed = small_run(tiny_model, photos, tmp_path / "b", **settings, resume_from_checkpoint="latest")
    for one, other in zip(plain.metrics, resumed.metrics, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5), "a checkpoint fits either layout"


def test_the_compiled_step_is_the_same(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    compiled = []

    def traced_only(self: Any, **options: Any) -> None:  # code generation would take minutes
        compiled.append(type(self).__name__)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced_only)
    monkeypatch.setenv("CXX", sys.executable)  # no compiler is asked for anything
    settings: dict[str, Any] = {
        "max_train_steps": 2,
        "validation_prompt": "a dog",
        "num_validation_images": 1,
        "validation_num_inference_steps": 1,
    }
    plain = small_run(tiny_model, photos, tmp_path / "a", **settings)
    assert compiled == []
    made = small_run(tiny_model, photos, tmp_path / "b", **settings, compile=True)
    assert compiled == ["UNet2DConditionModel"]
    for one, other in zip(plain.metrics, made.metrics, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_compiling_without_a_compiler_is_refused(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    with pytest.raises(ConfigError, match=r"compile: needs a compiler of C\+\+ for cpu, and CXX=.*g\+\+ is not there"):
        small_run(tiny_model, photos, tmp_path / "run", compile=True)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # of which nearly all is compiling
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles for a CPU")
def test_compiled_by_the_default_compiler_it_is_the_same(
    family_models: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    """Of Flux, whose transformer is compiled in a fraction of the time that a UNet takes."""
    model, settings = family_models("flux"), {"max_train_steps": 2}
    plain = small_run(model, photos, tmp_path / "a", **settings)
    made = small_run(model, photos, tmp_path / "b", **settings, compile=True)
    for one, other in zip(plain.metrics, made.metrics, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


def test_xformers_is_explained(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tiny_model, photos, tmp_path, max_train_steps=1, enable_xformers_memory_efficient_attention=True)
    assert "xformers is not used; the framework's own attention" in (tmp_path / "log.txt").read_text()
