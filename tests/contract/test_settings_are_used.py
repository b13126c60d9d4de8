"""No setting is silently ignored: the table of `config/used.py` says when each acts; here it meets what runs read."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamcore.backends.installed import RANK_VARIABLES, installed_backends
from dreamcore.cli.main import main
from dreamcore.config import Settings, TrainConfig, load_config, used
from dreamcore.config.used import Context, idle, refuse_idle
from dreamcore.config.when import OURS
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.models.settings import model_facts
from dreamcore.training import memory_plan, setup
from dreamcore.training.setup import prepare

from ..support.lora import UNET, write_lora
from ..support.runs import PRIOR, configuration
from ..support.tables import as_parquet
from .test_families import RUNS

LORA = {"use_lora": True}
LOOKING = {"validation_prompt": "a dog", "num_validation_images": 1, "validation_num_inference_steps": 1}
RANDOM = {"center_crop": None}
CAPTIONS = {"use_captions": True}
PRODIGY, ADAFACTOR = {"optimizer": "prodigy"}, {"optimizer": "adafactor"}
NEW_WORDS = {"train_text_encoder_ti": True, "instance_prompt": "a TOK dog"}

CASES: dict[str, tuple[Any, dict[str, Any] | None]] = {
    # setting: (a value, the settings without which it would do nothing; None where it always matters)
    "pretrained_model_name_or_path": (None, None),
    "like": ("diffusers", None),
    "pretrained_unet_name_or_path": (None, None),
    "tokenizer_name": (None, None),
    "original_config": ("described.yaml", {"pretrained_model_name_or_path": "model.ckpt"}),
    "sd_version": ("1.5", {"pretrained_model_name_or_path": "model.safetensors"}),
    "allow_pickle": (True, {"pretrained_model_name_or_path": "model.ckpt"}),
    "cache_dir": ("fetched", None),
    "instance_data_dir": (None, None),
    "output_dir": (None, None),
    "backend": (installed_backends()[0], None),
    "device": ("cpu", None),
    "mixed_precision": ("no", None),
    "allow_tf32": (False, None),
    "enable_vae_slicing": (True, None),
    "enable_vae_tiling": (True, None),
    "quantize_base": ("int8", LORA),
    "quantize_text_encoders": ("int8", None),
    "amp_level": ("O1", {"mixed_precision": "no"}),
    "dataset_name": (None, None),
    "dataset_config_name": ("default", {"dataset_name": "table"}),
    "image_column": ("image", {"dataset_name": "table"}),
    "cond_image_column": ("image", {"dataset_name": "table"}),
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
    "clip_l_dropout_rate": (0.5, None),
    "clip_g_dropout_rate": (0.5, None),
    "t5_dropout_rate": (0.5, None),
    "resolution": (64, None),
    "height": (64, {"width": 32, "resolution": None}),
    "width": (64, {"height": 32, "resolution": None}),
    "image_interpolation_mode": ("bilinear", None),
    "center_crop": (False, None),
    "random_flip": (True, None),
    "alpha_color": ("black", None),
    "subject_crop": (True, None),
    "masked_loss": (True, None),
    "outside_weight": (0.5, {"masked_loss": True}),
    "aspect_ratio_buckets": (True, {"bucket_step": 8}),
    "bucket_shapes": ("32,32;32,64", {"aspect_ratio_buckets": True}),
    "bucket_step": (8, {"aspect_ratio_buckets": True}),
    "latent_cache_dir": ("cache", {"cache_latents": True}),
    "cache_latents": (False, None),
    "instance_variants": (3, RANDOM),
    "class_variants": (3, RANDOM | PRIOR),
    "vae_batch_size": (2, None),
    "vae_precision": ("bf16", None),
    "cache_memory_gb": (2.0, {"cache_latents": True}),
    "with_prior_preservation": (True, {"class_prompt": "a dog", "num_class_images": 1, "prior_num_inference_steps": 1}),
    "prior_loss_weight": (0.5, PRIOR),
    "class_data_dir": ("classes", PRIOR),
    "class_prompt": ("a toy", PRIOR),
    "diff_output_preservation": (True, LORA | {"class_prompt": "a toy"}),
    "diff_output_preservation_multiplier": (
        0.5,
        LORA | {"class_prompt": "a toy", "diff_output_preservation": True},
    ),
    "num_class_images": (2, PRIOR),
    "sample_batch_size": (2, PRIOR),
    "prior_num_inference_steps": (1, PRIOR),
    "prior_guidance_scale": (2.0, PRIOR),
    "prior_generation_precision": ("bf16", PRIOR),
    "use_lora": (True, None),
    "rank": (2, LORA),
    "lora_alpha": (2.0, LORA),
    "init_lora": (None, LORA),
    "lora_dropout": (0.1, LORA),
    "lora_layers": (["to_q"], LORA),
    "lora_blocks": (["up_blocks.1"], LORA),
    "lora_method": ("pissa", LORA),
    "use_dora": (True, LORA),
    "use_rslora": (True, LORA),
    "lokr_factor": (2, LORA | {"lora_method": "lokr"}),
    "train_text_encoder": (True, None),
    "train_text_encoder_ti": (True, {"instance_prompt": "a TOK dog"}),
    "token_abstraction": ("dog", NEW_WORDS),
    "num_new_tokens_per_abstraction": (3, NEW_WORDS),
    "initializer_concept": ("toy", NEW_WORDS),
    "train_text_encoder_ti_frac": (0.7, NEW_WORDS),
    "train_transformer_frac": (0.0, NEW_WORDS | {"train_text_encoder_ti_frac": 1.0}),
    "enable_t5_ti": (True, NEW_WORDS),
    "pre_compute_text_embeddings": (True, None),
    "gradient_checkpointing": (True, None),
    "channels_last": (True, None),
    "compile": (True, None),
    "cuda_graphs": (False, None),
    "placement": ("cpu", None),
    "offload_optim_frac": (0.5, {"placement": "cpu"}),
    "blocks_to_swap": (1, LORA),
    "fused_backward_pass": (True, {"max_grad_norm": 0}),
    "shard": ("optimizer", None),
    "ddp_comm_hook": ("bf16", None),
    "ignore_memory_plan": (True, None),
    "enable_xformers_memory_efficient_attention": (True, None),
    "use_ema": (True, None),
    "ema_decay": (0.9, {"use_ema": True}),
    "snr_gamma": (5.0, None),
    "noise_offset": (0.1, None),
    "vae_encode_mode": ("mode", None),
    "weighting_scheme": ("mode", None),
    "logit_mean": (0.5, {"weighting_scheme": "logit_normal"}),
    "logit_std": (0.5, {"weighting_scheme": "logit_normal"}),
    "mode_scale": (0.5, {"weighting_scheme": "mode"}),
    "precondition_outputs": (True, None),
    "do_edm_style_training": (True, None),
    "resolution_shift": (True, None),
    "guidance_scale": (1.0, None),
    "max_sequence_length": (64, None),
    "drop_t5": (True, None),
    "text_encoder_out_layers": ([1], None),
    "tokenizer_max_length": (20, None),
    "text_encoder_use_attention_mask": (True, None),
    "class_labels_conditioning": ("timesteps", None),
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
    "optimizer": ("lion", None),
    "prodigy_beta3": (0.9, PRODIGY),
    "prodigy_decouple": (False, PRODIGY),
    "prodigy_use_bias_correction": (False, PRODIGY),
    "prodigy_safeguard_warmup": (False, PRODIGY),
    "prodigy_d0": (1e-5, PRODIGY),
    "prodigy_d_coef": (2.0, PRODIGY),
    "adafactor_relative_step": (True, ADAFACTOR | {"learning_rate": None}),
    "adafactor_scale_parameter": (True, ADAFACTOR),
    "adafactor_warmup_init": (True, ADAFACTOR | {"adafactor_relative_step": True, "learning_rate": None}),
    "came_beta3": (0.99, {"optimizer": "came"}),
    "muon_momentum": (0.9, {"optimizer": "muon"}),
    "max_grad_norm": (0.5, None),
    "validation_prompt": ("a dog", None),
    "validation_negative_prompt": ("a cat", LOOKING),
    "num_validation_images": (2, LOOKING),
    "validation_images": (None, {"validation_prompt": "a dog", "validation_num_inference_steps": 1}),
    "validation_steps": (2, LOOKING),
    "evaluate_steps": (1, LOOKING | {"judge": ["tinyworld"]}),
    "judge": (["tinyworld"], LOOKING | {"evaluate_steps": 1}),
    "best_by": ("validation_loss", {"validation_share": 0.3}),
    "stop_when": ("no_better_for=2", {"validation_share": 0.3}),
    "validation_epochs": (1, LOOKING),
    "validation_num_inference_steps": (2, LOOKING),
    "validation_guidance_scale": (2.0, LOOKING),
    "validation_scheduler": ("ddim", LOOKING),
    "final_validation_prompt": ("a cat", LOOKING),
    "skip_final_inference": (True, LOOKING),
    "validation_data_dir": (None, None),
    "overwrite_output_dir": (True, None),
    "checkpointing_steps": (2, None),
    "checkpointing_epochs": (2, {"checkpointing_steps": None}),
    "checkpoints_total_limit": (1, None),
    "checkpoint_last": (False, None),
    "resume_from_checkpoint": ("latest", None),
    "reset_optimizer": (True, {"resume_from_checkpoint": "latest"}),
    "export_format": ("ppdiffusers", None),
    "skip_save_text_encoder": (True, None),
    "save_precision": ("fp16", None),
    "lora_metadata": ("all", LORA),
    "metadata_title": ("a dog", LORA),
    "metadata_author": ("me", LORA),
    "training_comment": ("good", LORA),
    "layout": ("structured-lora", None),
    "push_to_hub": (False, None),
    "hub_model_id": ("someone/dog", {"push_to_hub": True}),
    "hub_private_repo": (True, {"push_to_hub": True}),
    "logging_steps": (1, None),
    "logging_dir": ("elsewhere", None),
    "report_to": ("none", None),
    "revision": ("main", None),
    "pretrained_vae_model_name_or_path": (None, None),
    "pretrained_text_encoder_4_name_or_path": ("llama", None),
    "pretrained_tokenizer_4_name_or_path": ("llama", None),
    "variant": ("fp16", None),
    "mode": ("pynative", None),
    "jit_level": ("O1", None),
}
ELSEWHERE = {"variant", "revision", "original_config", "sd_version", "allow_pickle", "hub_model_id"} | {
    *(f"pretrained_{part}_4_name_or_path" for part in ("text_encoder", "tokenizer")),
    "hub_private_repo",
}
"""Settings of the model's place and of publishing, which their own tests give."""
CONTRADICTING = {"resolution", "repeats", "checkpointing_steps", "lr_scheduler"}
"""Settings that cannot act beside others with which they contradict: the configuration's own tests show it."""

BACKEND = installed_backends()[0]
FLOW = dict.fromkeys(("weighting_scheme", "logit_mean", "logit_std", "mode_scale", "precondition_outputs"), "sd3")
FLOW |= dict.fromkeys(("resolution_shift", "max_sequence_length", "drop_t5"), "sd3") | {
    "guidance_scale": "flux",
    **dict.fromkeys(("clip_l_dropout_rate", "clip_g_dropout_rate", "t5_dropout_rate", "enable_t5_ti"), "sd3"),
    "text_encoder_use_attention_mask": "if1",
    "class_labels_conditioning": "if2",
    "validation_images": "if2",
    "text_encoder_out_layers": "klein",
    "cond_image_column": "kontext",
}
"""Settings of some families alone -> the model that shows their use; on Stable Diffusion they are refused."""
NEVER_READ = {"pre_compute_text_embeddings", "class_labels_conditioning"}
"""Accepted for other trainers' command lines: what it asks for is done in any case."""
READ_IDLE = {"validation_negative_prompt", "repeats", "instance_variants", "class_variants", "use_8bit_adam"}
READ_IDLE |= {"train_text_encoder", "train_text_encoder_ti", "quantize_base", "quantize_text_encoders"}
READ_IDLE |= {"vae_encode_mode", "vae_batch_size", "vae_precision"}
"""What a run reads where it changes nothing: before it is known that it does."""
ANOTHER: dict[str, Any] = {"caption_column": "words", "image_column": "picture", "amp_level": "O2", "mode": "graph"}
ANOTHER |= {"init_lora": "first.safetensors"}
ANOTHER |= {"pretrained_vae_model_name_or_path": "vae", "validation_images": ["a.png"]}
ANOTHER |= {"allow_tf32": True, "use_8bit_adam": True, "cuda_graphs": True, "sub_folders": True, "jit_level": "O0"}
"""Values that are not what a run does anyway, where those of `CASES` are."""


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


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The settings that are read from here on, but for the table's own conditions, and but for the plan of memory,
    which foretells what others do with them."""
    found = set[str]()

    def read(self: Settings, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name in type(self).model_fields:
            frame: Any = sys._getframe(1)
            while frame is not None and frame.f_globals["__name__"] not in (used.__name__, memory_plan.__name__):
                frame = frame.f_back
            if frame is None:
                found.add(name)
        return value

    monkeypatch.setattr(Settings, "__getattribute__", read, raising=False)
    return found


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[Context]:
    """What the table was asked about."""
    found = list[Context]()

    def refuse(config: TrainConfig, context: Context) -> None:
        found.append(context)
        refuse_idle(config, context)

    monkeypatch.setattr(setup, "refuse_idle", refuse)
    return found


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(setup, "load_suggested", load)


def test_every_setting_has_a_case_and_every_backend_its_name() -> None:
    assert CASES.keys() == TrainConfig.model_fields.keys()
    assert set(OURS) == RANK_VARIABLES.keys()


@pytest.mark.parametrize("name", sorted(CASES.keys() - ELSEWHERE - {n for n in FLOW if FLOW[n] not in RUNS}))
def test_the_table_says_what_a_run_reads(
    name: str,
    tiny_model: Path,
    family_models: Callable[[str], Path],
    photos: Path,
    tmp_path: Path,
    reads: set[str],
    contexts: list[Context],
) -> None:
    value, context = CASES[name]
    model = family_models(FLOW[name]) if name in FLOW else tiny_model
    given = dict(context or {})
    if value is not None:
        given[name] = str(tmp_path / value) if name == "class_data_dir" else value
    if name == "validation_data_dir":
        given[name] = str(photos)
    if name == "init_lora":
        given[name] = str(write_lora(model, tmp_path / "first.safetensors", [f"{UNET}.to_q"]))
    if name == "validation_images":
        given[name] = [str(next(photos.iterdir()))]
    if name == "latent_cache_dir":
        given[name] = str(tmp_path / "cache")
    parts = {"pretrained_vae_model_name_or_path": "vae", "pretrained_unet_name_or_path": "unet"}
    if part := {**parts, "tokenizer_name": "tokenizer"}.get(name):
        given[name] = str(tiny_model / part)
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
    config = configuration(model, photos, tmp_path / "out", **given)
    reads.clear()
    if name not in idle(config, Context(BACKEND)):
        with ExitStack() as stack:
            prepare(config, stack)
        acting = TrainConfig.model_fields.keys() - idle(config, contexts[-1])
        assert name in acting
        valued = {n for n in acting if config.__dict__[n] is not None}
        assert valued - reads == NEVER_READ & valued, "acts, and nothing reads it"
        assert reads - acting <= READ_IDLE, "is read, and does not act"
    elif value not in (TrainConfig.model_fields[name].default, "O1", "pynative"):  # another backend's
        with pytest.raises(ConfigError, match=f"(?m)^{name}=.*: acts only "), ExitStack() as stack:
            prepare(config, stack)


NOT_OF_FLOW = {"do_edm_style_training"} if "sd3" in RUNS else set[str]()
"""What cannot act on models of flow matching."""
NOT_OF_PIXELS = {
    *("train_text_encoder", "pretrained_vae_model_name_or_path"),
    *("enable_vae_slicing", "enable_vae_tiling", "vae_encode_mode", "vae_batch_size", "vae_precision"),
}
"""What cannot act on DeepFloyd IF."""
NOT_OF_LANGUAGE_MODELS = {"train_text_encoder_ti"} if "klein" in RUNS else set[str]()
"""What cannot act where a language model reads the words."""
UNSHOWN = ({"do_edm_style_training"} - NOT_OF_FLOW) | ({"train_text_encoder_ti"} - NOT_OF_LANGUAGE_MODELS)
"""What can act on every model that this backend runs here."""


@pytest.mark.parametrize("name", sorted(used.TRAIN.keys() - CONTRADICTING - UNSHOWN))
def test_what_cannot_act_is_refused_before_the_model_loads(
    name: str,
    tiny_model: Path,
    family_models: Callable[[str], Path],
    photos: Path,
    tmp_path: Path,
    nothing_loads: None,
) -> None:
    given: dict[str, Any] = {name: ANOTHER.get(name, CASES[name][0])}
    model = family_models("sd3") if name in NOT_OF_FLOW else tiny_model
    model = family_models("if1") if name in NOT_OF_PIXELS else model
    model = family_models("klein") if name in NOT_OF_LANGUAGE_MODELS else model
    if name == "quantize_text_encoders":
        given |= {"train_text_encoder": True}
    if name == "fused_backward_pass":
        given |= {"max_grad_norm": 0}
    if name == "skip_save_text_encoder":
        given |= {"use_lora": True}
    if name == "save_precision":
        given |= {"export_format": "ppdiffusers"}
    if name in ("cache_memory_gb", "latent_cache_dir"):
        given |= {"cache_latents": False}
    if name in ("adam_beta2", "adam_epsilon"):
        given |= {"optimizer": "sgd"}
    if name in ("learning_rate", "scale_lr"):
        given = {"learning_rate": None} | given | ADAFACTOR | {"adafactor_relative_step": True}
    if name in ("sub_folders", "caption_source"):
        given |= {"dataset_name": str(as_parquet(photos, tmp_path / "table")), "instance_data_dir": None}
        given |= {"caption_column": "text"}
    config = configuration(model, photos, tmp_path / "out", **given)
    if name in idle(config, Context(BACKEND, model_facts(ModelFolder.open(str(model))), frozenset())):
        with (
            pytest.raises(
                ConfigError, match=f"^({name}=.*: acts only .*remove it|optimizer: adamw8bit is on torch only)"
            ),
            ExitStack() as stack,
        ):
            prepare(config, stack)
        assert not (tmp_path / "out").exists()
    else:  # of this backend
        assert name in {"torch": TORCH, "mindspore": {"mode", "jit_level"}, "paddle": {"shard"}}[BACKEND]


TORCH = {
    *("allow_tf32", "channels_last", "compile", "use_8bit_adam", "placement", "fused_backward_pass", "shard"),
    *("ddp_comm_hook", "vae_precision", "cuda_graphs"),
}


def test_all_are_named_at_once(tiny_model: Path, photos: Path, tmp_path: Path, nothing_loads: None) -> None:
    given = {"lora_alpha": 2.0, "guidance_scale": 1.0, "identifier": "sks", "lr_warmup_steps": 500}
    config = configuration(tiny_model, photos, tmp_path / "out", **given)
    with pytest.raises(ConfigError) as caught, ExitStack() as stack:
        prepare(config, stack)
    assert [line.partition("=")[0] for line in str(caught.value).splitlines()] == sorted(
        given, key=str(caught.value).find
    )
    assert "give lr_scheduler constant_with_warmup" in str(caught.value)


def test_a_value_that_changes_nothing_is_accepted(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """As every other trainer's README prints: `--lr_scheduler=constant --lr_warmup_steps=0`."""
    plain = configuration(tiny_model, photos, tmp_path / "out")
    given = {n: f.default for n, f in TrainConfig.model_fields.items() if n in used.TRAIN and f.default is not None}
    given |= {"weighting_scheme": "none", "amp_level": "O1", "prior_generation_precision": "fp32"}
    given |= {"instance_variants": 1, "class_variants": 1, "text_encoder_lr": 1e-4}  # as the learning rate
    given |= {} if BACKEND == "mindspore" else {"mode": "pynative"}
    config = configuration(tiny_model, photos, tmp_path / "out", **{"validation_steps": None} | given)
    with ExitStack() as stack:
        resolved = prepare(config, stack).resolved
    acting = used.acting(plain, Context(BACKEND, None, frozenset())).keys() - FLOW.keys()
    settled = {"adam_beta1", "adam_beta2", "adam_epsilon", "adam_weight_decay"}  # the optimizer's own
    assert resolved.settings.keys() == settled | acting - {"reset_optimizer", "overwrite_output_dir"}


def test_what_a_preset_suggests_is_accepted(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    given = {"pretrained_model_name_or_path": str(tiny_model), "instance_data_dir": str(photos), "instance_prompt": "a"}
    given |= {"use_lora": "false", "resolution": 32, "output_dir": str(tmp_path / "out"), "report_to": "none"}
    config = load_config(TrainConfig, "sd15-lora", given)
    with ExitStack() as stack:
        resolved = prepare(config, stack).resolved
    assert "rank" in config.given().keys() - resolved.settings.keys()


def test_another_backends_settings_are_refused_at_the_launch(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "p", "--model", "a/b", "--instance_prompt", "x", "--lora_alpha", "2", "--guidance_scale", "2"]
    assert main(["launch", "--num_processes", "2", "--dry_run", "--", *train]) == 2
    assert (
        capsys.readouterr().err
        == "dreambooth: error: lora_alpha=2.0: acts only with use_lora; give use_lora, or remove it\n"
    )
