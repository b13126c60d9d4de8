"""No setting is silently ignored: given where it cannot matter, it fails the run; where it can, it is read."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dreamcore.backend import installed_backends
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.setup import prepare

from .runs import PRIOR, configuration

LORA = {"use_lora": True}
LOOKING = {"validation_prompt": "a dog", "num_validation_images": 1, "validation_num_inference_steps": 1}
RANDOM = {"center_crop": None}

CASES: dict[str, tuple[Any, dict[str, Any] | None]] = {
    # setting: (a value, the settings without which it would do nothing; None where it always matters)
    "pretrained_model_name_or_path": (None, None),
    "instance_data_dir": (None, None),
    "output_dir": (None, None),
    "backend": (installed_backends()[0], None),
    "device": ("cpu", None),
    "mixed_precision": ("bf16" if "torch" in installed_backends() else "no", None),
    "instance_prompt": ("a toy", None),
    "use_captions": (False, None),
    "caption_dropout": (0.5, None),
    "resolution": (64, None),
    "height": (64, {"width": 32, "resolution": None}),
    "width": (64, {"height": 32, "resolution": None}),
    "center_crop": (False, None),
    "random_flip": (True, None),
    "cache_latents": (False, None),
    "instance_variants": (3, RANDOM),
    "class_variants": (3, RANDOM | PRIOR),
    "cache_memory_gb": (2.0, {"cache_latents": True}),
    "with_prior_preservation": (True, {"class_prompt": "a dog", "num_class_images": 1, "prior_num_inference_steps": 1}),
    "prior_loss_weight": (0.5, PRIOR),
    "class_data_dir": ("classes", PRIOR),
    "class_prompt": ("a toy", PRIOR),
    "num_class_images": (2, PRIOR),
    "sample_batch_size": (2, PRIOR),
    "prior_num_inference_steps": (1, PRIOR),
    "prior_guidance_scale": (2.0, PRIOR),
    "use_lora": (True, None),
    "rank": (2, LORA),
    "lora_alpha": (2.0, LORA),
    "lora_dropout": (0.1, LORA),
    "lora_layers": (["to_q"], LORA),
    "train_text_encoder": (True, None),
    "pre_compute_text_embeddings": (True, None),
    "gradient_checkpointing": (True, None),
    "use_ema": (True, None),
    "ema_decay": (0.9, {"use_ema": True}),
    "snr_gamma": (5.0, None),
    "noise_offset": (0.1, None),
    "tokenizer_max_length": (20, None),
    "seed": (3, None),
    "train_batch_size": (2, None),
    "gradient_accumulation_steps": (2, None),
    "num_train_epochs": (1, {"max_train_steps": None}),
    "max_train_steps": (1, None),
    "learning_rate": (1e-5, None),
    "text_encoder_lr": (1e-6, {"train_text_encoder": True}),
    "scale_lr": (True, None),
    "lr_scheduler": ("linear", None),
    "lr_warmup_steps": (2, {"lr_scheduler": "cosine"}),
    "lr_num_cycles": (2, {"lr_scheduler": "cosine_with_restarts"}),
    "lr_power": (2.0, {"lr_scheduler": "polynomial"}),
    "adam_beta1": (0.8, None),
    "adam_beta2": (0.9, None),
    "adam_weight_decay": (0.0, None),
    "adam_epsilon": (1e-6, None),
    "max_grad_norm": (0.5, None),
    "validation_prompt": ("a dog", None),
    "validation_negative_prompt": ("a cat", LOOKING),
    "num_validation_images": (2, LOOKING),
    "validation_steps": (2, LOOKING),
    "validation_epochs": (1, LOOKING),
    "validation_num_inference_steps": (2, LOOKING),
    "validation_guidance_scale": (2.0, LOOKING),
    "validation_scheduler": ("ddim", LOOKING),
    "validation_data_dir": (None, None),
    "overwrite_output_dir": (True, None),
    "checkpointing_steps": (2, None),
    "checkpoints_total_limit": (1, None),
    "resume_from_checkpoint": ("latest", None),
    "logging_steps": (1, None),
    "logging_dir": ("elsewhere", None),
    "report_to": ("none", None),
    "revision": ("main", None),
    "variant": ("fp16", None),
    "mode": ("pynative", None),
    "jit_level": ("O0", None),
}
ELSEWHERE = {"variant", "revision", "mode", "jit_level"}
"""Settings of the model's place, which loading's own tests give, and of one backend alone."""
CONTRADICTING = {"height", "width", "with_prior_preservation", "num_train_epochs"}
"""Settings that are errors of another kind when alone, which the configuration's own tests show."""


def test_every_setting_has_a_case() -> None:
    assert CASES.keys() == TrainConfig.model_fields.keys()


@pytest.mark.parametrize("name", sorted(CASES.keys() - ELSEWHERE))
def test_a_given_setting_is_used(name: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    value, context = CASES[name]
    given = dict(context or {})
    if value is not None:
        given[name] = str(tmp_path / value) if name == "class_data_dir" else value
    if name == "validation_data_dir":
        given[name] = str(photos)
    with ExitStack() as stack:
        prepare(configuration(tiny_model, photos, tmp_path / "out", **given), stack)


@pytest.mark.parametrize("name", sorted({n for n, (_, context) in CASES.items() if context} - CONTRADICTING))
def test_a_setting_that_nothing_uses_fails_the_run(name: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    value, context = CASES[name]
    alone = {k: v for k, v in (context or {}).items() if v is None}
    if name == "cache_memory_gb":
        alone = {"cache_latents": False}
    if name in ("instance_variants", "class_variants"):
        alone = {}
    with pytest.raises(ConfigError, match=f"{name}=.*nothing in this run uses it"), ExitStack() as stack:
        prepare(configuration(tiny_model, photos, tmp_path / "out", **alone, **{name: value}), stack)
    assert not (tmp_path / "out" / "config.yaml").exists()
