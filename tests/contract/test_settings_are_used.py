"""No setting is silently ignored: given where it cannot matter, it fails the run; where it can, it is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamcore.backend import installed_backends
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.setup import prepare

from ..tables import as_parquet
from .runs import PRIOR, configuration
from .test_families import RUNS

LORA = {"use_lora": True}
LOOKING = {"validation_prompt": "a dog", "num_validation_images": 1, "validation_num_inference_steps": 1}
RANDOM = {"center_crop": None}
CAPTIONS = {"use_captions": True}

CASES: dict[str, tuple[Any, dict[str, Any] | None]] = {
    # setting: (a value, the settings without which it would do nothing; None where it always matters)
    "pretrained_model_name_or_path": (None, None),
    "instance_data_dir": (None, None),
    "output_dir": (None, None),
    "backend": (installed_backends()[0], None),
    "device": ("cpu", None),
    "mixed_precision": ("no", None),
    "allow_tf32": (False, None),
    "amp_level": ("O1", {"mixed_precision": "no"}),
    "dataset_name": (None, None),
    "dataset_config_name": ("default", {"dataset_name": "table"}),
    "image_column": ("image", {"dataset_name": "table"}),
    "instance_prompt": ("a toy", None),
    "concepts": (None, None),
    "sub_folders": (False, None),
    "repeats": (2, None),
    "validation_share": (0.3, None),
    "use_captions": (False, None),
    "caption_source": ("file_names", CAPTIONS),
    "caption_column": ("text", {"use_captions": True, "caption_source": "metadata"}),
    "missing_caption": ("error", CAPTIONS),
    "caption_template": ("{caption}, a photo", CAPTIONS),
    "identifier": ("sks", {"instance_prompt": "a {identifier} dog"}),
    "class_word": ("dog", {"instance_prompt": "a sks {class}"}),
    "shuffle_tags": (True, CAPTIONS),
    "keep_tags": (1, CAPTIONS | {"shuffle_tags": True}),
    "caption_variants": (3, CAPTIONS | {"shuffle_tags": True}),
    "caption_dropout": (0.5, None),
    "resolution": (64, None),
    "height": (64, {"width": 32, "resolution": None}),
    "width": (64, {"height": 32, "resolution": None}),
    "center_crop": (False, None),
    "random_flip": (True, None),
    "alpha_color": ("black", None),
    "subject_crop": (True, None),
    "masked_loss": (True, None),
    "outside_weight": (0.5, {"masked_loss": True}),
    "aspect_ratio_buckets": (True, {"bucket_step": 8}),
    "bucket_step": (8, {"aspect_ratio_buckets": True}),
    "latent_cache_dir": ("cache", {"cache_latents": True}),
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
    "prior_generation_precision": ("bf16", PRIOR),
    "use_lora": (True, None),
    "rank": (2, LORA),
    "lora_alpha": (2.0, LORA),
    "lora_dropout": (0.1, LORA),
    "lora_layers": (["to_q"], LORA),
    "train_text_encoder": (True, None),
    "pre_compute_text_embeddings": (True, None),
    "gradient_checkpointing": (True, None),
    "channels_last": (True, None),
    "compile": (True, None),
    "enable_xformers_memory_efficient_attention": (True, None),
    "use_ema": (True, None),
    "ema_decay": (0.9, {"use_ema": True}),
    "snr_gamma": (5.0, None),
    "noise_offset": (0.1, None),
    "weighting_scheme": ("mode", None),
    "logit_mean": (0.5, {"weighting_scheme": "logit_normal"}),
    "logit_std": (0.5, {"weighting_scheme": "logit_normal"}),
    "mode_scale": (0.5, {"weighting_scheme": "mode"}),
    "precondition_outputs": (True, None),
    "resolution_shift": (True, None),
    "guidance_scale": (1.0, None),
    "max_sequence_length": (64, None),
    "drop_t5": (True, None),
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
    "adam_weight_decay_text_encoder": (0.1, {"train_text_encoder": True}),
    "adam_epsilon": (1e-6, None),
    "use_8bit_adam": (False, None),
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
    "reset_optimizer": (True, {"resume_from_checkpoint": "latest"}),
    "export_format": ("ppdiffusers", None),
    "logging_steps": (1, None),
    "logging_dir": ("elsewhere", None),
    "report_to": ("none", None),
    "revision": ("main", None),
    "pretrained_vae_model_name_or_path": (None, None),
    "variant": ("fp16", None),
    "mode": ("pynative", None),
    "jit_level": ("O0", None),
}
ELSEWHERE = {"variant", "revision", "amp_level", "mode", "jit_level"}
"""Settings of the model's place, which loading's own tests give, and of GPUs or of one backend alone."""
CONTRADICTING = {
    *("aspect_ratio_buckets", "height", "width", "with_prior_preservation", "num_train_epochs", "dataset_config_name"),
}
"""Settings that are errors of another kind when alone, which the configuration's own tests show."""

BACKEND = installed_backends()[0]
FLOW = dict.fromkeys(("weighting_scheme", "logit_mean", "logit_std", "mode_scale", "precondition_outputs"), "sd3")
FLOW |= dict.fromkeys(("resolution_shift", "max_sequence_length", "drop_t5"), "sd3") | {"guidance_scale": "flux"}
"""Settings of some families alone -> the model that shows their use; on Stable Diffusion they are refused."""
TORCH_ONLY = {"allow_tf32", "channels_last", "compile", "use_8bit_adam", "prior_generation_precision"}
"""Settings that only PyTorch's adapter knows: any other refuses them, whatever they say."""


def with_masks(photos: Path, folder: Path) -> Path:
    """The photographs, each with a mask that shows its left half."""
    shutil.copytree(photos, folder)
    for file in sorted(folder.iterdir()):
        size = Image.open(file).size
        mask = Image.new("L", size, 0)
        mask.paste(255, (0, 0, size[0] // 2, size[1]))
        mask.save(folder / f"{file.stem}-mask.png")
    return folder


def with_captions(photos: Path, folder: Path, source: str) -> Path:
    """The photographs, each with words of its own where `source` says."""
    folder.mkdir()
    lines = []
    for number, file in enumerate(sorted(photos.iterdir())):
        name, words = f"a red toy {number}{file.suffix}", f"a photo, a dog, a toy, snow, grass {number}"
        shutil.copy(file, folder / name)
        if source == "auto":
            (folder / name).with_suffix(".txt").write_text(words)
        lines.append(json.dumps({"file_name": name, "text": words}))
    if source == "metadata":
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_every_setting_has_a_case() -> None:
    assert CASES.keys() == TrainConfig.model_fields.keys()


@pytest.mark.parametrize("name", sorted(CASES.keys() - ELSEWHERE - {n for n in FLOW if FLOW[n] not in RUNS}))
def test_a_given_setting_is_used(
    name: str, tiny_model: Path, family_models: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    value, context = CASES[name]
    model = family_models(FLOW[name]) if name in FLOW else tiny_model
    given = dict(context or {})
    if value is not None:
        given[name] = str(tmp_path / value) if name == "class_data_dir" else value
    if name == "validation_data_dir":
        given[name] = str(photos)
    if name == "latent_cache_dir":
        given[name] = str(tmp_path / "cache")
    if name == "pretrained_vae_model_name_or_path":
        given[name] = str(tiny_model / "vae")
    if name == "concepts":
        given |= {"concepts": [{"instance_data_dir": str(photos), "instance_prompt": "a toy"}]}
        given |= {"instance_data_dir": None, "instance_prompt": None}
    if "masked_loss" in given or "subject_crop" in given:
        photos = with_masks(photos, tmp_path / "masked")
        given["instance_data_dir"] = str(photos)
    if "dataset_name" in (name, *given):
        given |= {"dataset_name": str(as_parquet(photos, tmp_path / "table")), "instance_data_dir": None}
    if given.get("use_captions"):
        photos = with_captions(photos, tmp_path / "captioned", given.get("caption_source", "auto"))
        given["instance_data_dir"] = str(photos)
    refused = name in TORCH_ONLY and BACKEND != "torch"
    refusal = pytest.raises(ConfigError, match=f"{name}=.*nothing in this run uses it") if refused else nullcontext()
    with refusal, ExitStack() as stack:
        prepare(configuration(model, photos, tmp_path / "out", **given), stack)


@pytest.mark.parametrize("name", FLOW)
def test_a_setting_of_another_family_fails_the_run(name: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{name}=.*nothing in this run uses it"), ExitStack() as stack:
        prepare(configuration(tiny_model, photos, tmp_path / "out", **{name: CASES[name][0]}), stack)


@pytest.mark.parametrize(
    "name", sorted({n for n, (_, context) in CASES.items() if context} - CONTRADICTING - FLOW.keys())
)
def test_a_setting_that_nothing_uses_fails_the_run(name: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    value, context = CASES[name]
    alone = {k: v for k, v in (context or {}).items() if v is None}
    if name == "cache_memory_gb":
        alone = {"cache_latents": False}
    if name == "latent_cache_dir":
        alone = {"cache_latents": False}
    if name in ("instance_variants", "class_variants"):
        alone = {}
    with pytest.raises(ConfigError, match=f"{name}=.*nothing in this run uses it"), ExitStack() as stack:
        prepare(configuration(tiny_model, photos, tmp_path / "out", **alone, **{name: value}), stack)
    assert not (tmp_path / "out" / "config.yaml").exists()
