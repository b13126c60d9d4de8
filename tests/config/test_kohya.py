"""sd-scripts' command lines: each flag of its parsers is a setting, changes nothing, or is refused by name; folders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dreamcore.cli.flags import parse_settings
from dreamcore.cli.main import command_of
from dreamcore.config import TrainConfig, load_config
from dreamcore.config.compat.kohya import KOHYA
from dreamcore.config.compat.kohya_networks import LAYERS, PRESETS
from dreamcore.errors import ConfigError


def parted(text: str) -> list[str]:
    return text.split()


OURS = ("--pretrained_model_name_or_path=m", "--instance_data_dir=d", "--instance_prompt=sks dog")
BECOME: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrained_model_name_or_path": ("m", {"pretrained_model_name_or_path": "m"}),
    "vae": ("v", {"pretrained_vae_model_name_or_path": "v"}),
    "v2": ("--pretrained_model_name_or_path=a.ckpt", {"sd_version": "2.1"}),
    "v_parameterization": ("--v2 --pretrained_model_name_or_path=a.ckpt", {"sd_version": "2.1-v"}),
    "network_module": ("networks.lora", {"use_lora": True}),
    "network_args": (
        "algo=lokr,preset=attn-mlp,factor=8,rs_lora=True,conv_dim=16 --network_module=lycoris.kohya --network_dim=16",
        {"lora_method": "lokr", "lora_layers": list(LAYERS), "lokr_factor": 8, "use_rslora": True},
    ),
    "network_dim": ("16", {"rank": 16}),
    "network_alpha": ("8", {"lora_alpha": 8.0}),
    "network_weights": ("a.safetensors --network_dim=8", {"init_lora": "a.safetensors", "rank": 8}),
    "dim_from_weights": ("--network_weights=a.safetensors --network_dim=8", {"init_lora": "a.safetensors", "rank": 4}),
    "save_precision": ("float", {"save_precision": "fp32"}),
    "no_metadata": ("", {"lora_metadata": "none"}),
    "training_comment": ("x", {"training_comment": "x"}),
    "metadata_title": ("x", {"metadata_title": "x"}),
    "network_train_unet_only": ("--text_encoder_lr=1e-5", {"train_text_encoder": False, "text_encoder_lr": None}),
    "stop_text_encoder_training": ("-1", {"train_text_encoder": False}),
    "unet_lr": ("1e-4 --learning_rate=1e-5", {"learning_rate": 1e-4, "text_encoder_lr": 1e-5}),
    "learning_rate": ("3e-5", {"learning_rate": 3e-5}),
    "text_encoder_lr": ("5e-5", {"text_encoder_lr": 5e-5, "learning_rate": 2e-6, "train_text_encoder": True}),
    "learning_rate_te": ("0", {"train_text_encoder": False, "text_encoder_lr": None}),
    "learning_rate_te1": ("1e-5 --learning_rate_te2 1e-5", {"text_encoder_lr": 1e-5}),
    "learning_rate_te2": ("2e-6", {"text_encoder_lr": 2e-6}),
    "text_encoder_lr1": ("1e-5 --text_encoder_lr2=1e-5", {"text_encoder_lr": 1e-5}),
    "text_encoder_lr2": ("2e-6", {"text_encoder_lr": 2e-6}),
    "torch_compile": ("", {"compile": True}),
    "t5xxl_max_token_length": ("256", {"max_sequence_length": 256}),
    "min_snr_gamma": ("5", {"snr_gamma": 5.0}),
    "noise_offset": ("0.1", {"noise_offset": 0.1}),
    "max_train_steps": ("9", {"max_train_steps": 9}),
    "max_train_epochs": ("3 --max_train_steps=9", {"num_train_epochs": 3, "max_train_steps": None}),
    "train_batch_size": ("2", {"train_batch_size": 2}),
    "gradient_accumulation_steps": ("2", {"gradient_accumulation_steps": 2}),
    "gradient_checkpointing": ("", {"gradient_checkpointing": True}),
    "max_grad_norm": ("0.5", {"max_grad_norm": 0.5}),
    "mixed_precision": ("bf16", {"mixed_precision": "bf16"}),
    "seed": ("42", {"seed": 42}),
    "use_8bit_adam": ("", {"use_8bit_adam": True}),
    "optimizer_type": ("AdamW8bit", {"optimizer": "adamw8bit"}),
    "use_lion_optimizer": ("", {"optimizer": "lion"}),
    "optimizer_args": (
        "weight_decay=0.1 betas=0.9,0.99 eps=1e-7",
        {"adam_weight_decay": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.99, "adam_epsilon": 1e-7},
    ),
    "lr_scheduler": ("cosine", {"lr_scheduler": "cosine"}),
    "lr_warmup_steps": ("0.1 --max_train_steps=500", {"lr_warmup_steps": 50}),
    "lr_scheduler_num_cycles": ("3", {"lr_num_cycles": 3}),
    "lr_scheduler_power": ("2", {"lr_power": 2.0}),
    "fp8_base": ("", {"quantize_base": "fp8"}),
    "fp8_base_unet": ("", {"quantize_base": "fp8"}),
    "prior_loss_weight": ("0.5", {"prior_loss_weight": 0.5}),
    "resolution": ("512,768", {"width": 512, "height": 768, "resolution": None}),
    "enable_bucket": ("", {"aspect_ratio_buckets": True}),
    "bucket_reso_steps": ("32 --enable_bucket", {"bucket_step": 32}),
    "min_bucket_reso": (
        "448 --max_bucket_reso=576 --enable_bucket --resolution 512", {"bucket_shapes": "448,576;512,512;576,448"},
    ),
    "max_bucket_reso": ("512 --min_bucket_reso=512 --enable_bucket --resolution 512", {"bucket_shapes": "512,512"}),
    "resize_interpolation": ("area", {"image_interpolation_mode": "box"}),
    "random_crop": ("", {"center_crop": False, "instance_variants": 0}),
    "flip_aug": ("", {"random_flip": True}),
    "shuffle_caption": ("", {"shuffle_tags": True}),
    "keep_tokens": ("2 --shuffle_caption", {"keep_tags": 2}),
    "caption_dropout_rate": ("0.1", {"caption_dropout": 0.1}),
    "clip_l_dropout_rate": ("0.1", {"clip_l_dropout_rate": 0.1}),
    "cache_latents": ("", {"cache_latents": True}),
    "cache_latents_to_disk": ("", {"cache_latents": True}),
    "alpha_mask": ("", {"masked_loss": True, "outside_weight": 0.0}),
    "masked_loss": ("", {"masked_loss": True, "outside_weight": 0.0}),
    "validation_split": ("0.2", {"validation_share": 0.2, "validation_epochs": 1}),
    "validate_every_n_steps": ("7", {"validation_steps": 7}),
    "validate_every_n_epochs": ("7", {"validation_epochs": 7}),
    "sample_every_n_steps": ("7", {"validation_steps": 7}),
    "sample_every_n_epochs": ("2 --sample_every_n_steps 7", {"validation_epochs": 2}),
    "save_every_n_steps": ("7", {"checkpointing_steps": 7}),
    "save_every_n_epochs": ("7", {"checkpointing_epochs": 7}),
    "save_last_n_steps": ("30 --save_every_n_steps=10", {"checkpoints_total_limit": 4}),
    "save_last_n_epochs": ("3", {"checkpoints_total_limit": 3}),
    "resume": ("x-state", {"resume_from_checkpoint": "x-state"}),
    "output_dir": ("out", {"output_dir": "out"}),
    "output_name": ("dog --output_dir=out", {"output_dir": str(Path("out/dog"))}),
    "logging_dir": ("logs", {"logging_dir": str(Path("logs").absolute()), "report_to": "tensorboard"}),
    "log_with": ("wandb", {"report_to": "wandb"}),
    "huggingface_repo_id": ("me/dog", {"push_to_hub": True, "hub_model_id": "me/dog", "hub_private_repo": True}),
    "huggingface_repo_visibility": ("public --huggingface_repo_id=me/dog", {"hub_private_repo": False}),
    "guidance_scale": ("1.0", {"guidance_scale": 1.0}),
    "weighting_scheme": ("cosmap", {"weighting_scheme": "cosmap"}),
    "logit_mean": ("0.5", {"logit_mean": 0.5}),
    "logit_std": ("0.5", {"logit_std": 0.5}),
    "mode_scale": ("0.5", {"mode_scale": 0.5}),
    "model_prediction_type": ("raw --timestep_sampling=uniform", {"weighting_scheme": "none"}),
    "timestep_sampling": (
        "flux_shift --model_prediction_type=raw",
        {"weighting_scheme": "logit_normal", "logit_mean": 0.0, "logit_std": 1.0, "resolution_shift": True},
    ),
    "discrete_flow_shift": (
        "3.1582 --timestep_sampling=shift --model_prediction_type=raw",
        {"weighting_scheme": "logit_normal", "logit_mean": pytest.approx(-math.log(3.1582))},
    ),
    "sigmoid_scale": (
        "0.5 --timestep_sampling sigmoid --model_prediction_type=raw", {"logit_mean": 0.0, "logit_std": 0.5},
    ),
    "training_shift": ("1 --weighting_scheme logit_normal", {"logit_mean": pytest.approx(math.log(3))}),
}  # fmt: skip
"""Flag -> its value (and other words) -> the settings that it makes."""
NOTHING = parted("""
xformers sdpa mem_eff_attn no_half_vae skip_cache_check cache_info persistent_data_loader_workers lowram highvram
cache_text_encoder_outputs cache_text_encoder_outputs_to_disk disable_mmap_load_safetensors save_state
save_state_on_train_end use_safetensors save_clip save_t5xxl async_upload log_config ddp_gradient_as_bucket_view
ddp_static_graph ip_noise_gamma_random_strength skip_until_initial_step support_controlnet support_dreambooth
support_dropout support_finetuning sample_at_first max_data_loader_n_workers=2
text_encoder_batch_size=4 tokenizer_cache_dir=t log_prefix=p wandb_run_name=r log_tracker_name=n ddp_timeout=9
multires_noise_discount=0.1 sample_sampler=euler_a huber_schedule=constant huber_c=0.2 huber_scale=2 token_warmup_min=2
dataset_repeats=3 base_weights_multiplier=0.5 lr_decay_steps=5 lr_scheduler_timescale=5 lr_scheduler_min_lr_ratio=0.1
validation_seed=7 t5xxl_dtype=fp16 t5xxl_device=cpu save_model_as=safetensors
loss_type=l2 model_type=flux clip_skip=1 max_token_length=75 max_timestep=1000 min_timestep=0 caption_separator=,
initial_epoch=1 huggingface_repo_type=model dynamo_backend=inductor network_dropout=0
""")
REFUSED = parted("""
dim_from_weights network_train_text_encoder_only split_mode cpu_offload_checkpointing full_fp16
full_bf16 no_token_padding apply_t5_attn_mask apply_lg_attn_mask enable_scaled_pos_embed debiased_estimation_loss
scale_v_pred_loss_like_noise_pred zero_terminal_snr noise_offset_random_strength
color_aug bucket_no_upscale enable_wildcard weighted_captions debug_dataset resume_from_huggingface output_config
save_state_to_huggingface network_args=conv_dim=4 network_dropout=0.1 save_precision=fp8 base_weights=a
scale_weight_norms=1 clip_l=c clip_g=c t5xxl=t ae=a model_type=chroma dynamo_backend=eager
controlnet_model_name_or_path=c max_token_length=225 pos_emb_random_crop_rate=0.1 loss_type=huber
v_pred_like_loss=0.1 min_timestep=10 max_timestep=900
adaptive_noise_scale=0.1 multires_noise_iterations=6 ip_noise_gamma=0.1 lr_scheduler_type=CosineAnnealingLR
lr_scheduler_args=T_max=5 face_crop_aug_range=2.0,4.0 conditioning_data_dir=c caption_separator=; secondary_separator=;
keep_tokens_separator=||| caption_dropout_every_n_epochs=2 caption_tag_dropout_rate=0.1 token_warmup_step=0.5
in_json=a.json dataset_class=a.B max_validation_steps=4 save_n_epoch_ratio=5 save_last_n_epochs_state=1
save_last_n_steps_state=10 initial_epoch=2 initial_step=9 huggingface_repo_type=dataset huggingface_path_in_repo=p
log_tracker_config=c.toml wandb_api_key=abc network_module=networks.oft optimizer_type=DAdaptAdam
optimizer_args=decouple=True lr_scheduler=adafactor save_model_as=ckpt clip_skip=2 resize_interpolation=fancy
stop_text_encoder_training=100 unet_lr=0 save_last_n_steps=9 lr_warmup_steps=many timestep_sampling=sigma
model_prediction_type=additive training_shift=2 caption_prefix=x caption_suffix=x caption_extension=.txt
caption_extention=.txt reg_data_dir=nowhere train_data_dir=nowhere dataset_config=nowhere.toml
learning_rate_te1=1e-5 resolution=512x512 train_t5xxl deepspeed block_lr=1e-4
""")
ELSEWHERE = {"sample_prompts", "sample_sampler", "huggingface_token", "config_file"}
"""Flags with a test of their own."""


def config_of(*words: str, ours: tuple[str, ...] = OURS) -> TrainConfig:
    has = {word.partition("=")[0] for word in words}
    words = (*(word for word in ours if word.partition("=")[0] not in has), *words)
    return load_config(TrainConfig, *parse_settings(TrainConfig, "train", "", [*words, "--like=kohya"]))


def started(*words: str) -> TrainConfig:
    """A script's name and its arguments."""
    command, rest = command_of(words)
    return load_config(TrainConfig, *parse_settings(TrainConfig, command, "", rest))


def facts(config: TrainConfig) -> dict[str, Any]:
    return {name: value for name, value in config.given().items() if name not in config.suggested}


@pytest.mark.parametrize("flag", BECOME)
def test_flags_that_become_settings(flag: str) -> None:
    text, expected = BECOME[flag]
    words = [f"--{flag}", *text.split()]
    if flag == "learning_rate_te2" or flag == "text_encoder_lr2":
        words.append("--learning_rate=2e-6")
    config = config_of(*([f"--{flag}={words[1]}", *words[2:]] if words[1:] and words[1].startswith("-1") else words))
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("flag", NOTHING)
def test_flags_that_change_nothing(flag: str) -> None:
    assert facts(config_of(f"--{flag}")) == facts(config_of())
    meaning = KOHYA.train[flag.partition("=")[0]]
    assert len(meaning.words) > 10 or meaning.words == "done anyway"


@pytest.mark.parametrize("flag", REFUSED)
def test_flags_that_are_refused_by_name(flag: str) -> None:
    name, _, value = flag.partition("=")
    with pytest.raises(ConfigError) as caught:
        config_of(f"--{flag}")
    said = str(caught.value)
    others = {"learning_rate_te1": "text_encoder_lr", "caption_extention": "caption_extension"}
    others |= {"timestep_sampling": "model_prediction_type"}  # without which no sampling is Flux's
    assert f"{others.get(name, name)}: " in said and "did you mean" not in said
    assert name != "wandb_api_key" or (value not in said and "WANDB_API_KEY" in said)


def test_every_flag_of_the_table_is_tested() -> None:
    tested = {*BECOME, *ELSEWHERE, *(flag.partition("=")[0] for flag in (*NOTHING, *REFUSED))}
    rest = KOHYA.train.keys() - tested
    same_kind = ("metadata_", "console_", "zero", "offload_", "fp16_master", "learning_rate_te3", "diffusers_xformers")
    of_full_training = {
        *("mem_eff_save", "fused_optimizer_groups", "blockwise_fused_optimizers", "skip_latents_validity_check"),
        *("double_blocks_to_swap", "single_blocks_to_swap", "num_last_block_to_freeze", "use_t5xxl_cache_only"),
    }
    assert {name for name in rest if not name.startswith(same_kind)} == of_full_training | {"kohya_script"}


LYCORIS, FLUX = "--network_module=lycoris.kohya", "--network_module=networks.lora_flux"


@pytest.mark.parametrize(
    ("words", "becomes"),
    [
        ((LYCORIS,), {"lora_layers": list(PRESETS["full"]), "lora_method": "lora", "use_dora": False}),
        ((LYCORIS, "--network_args=algo=loha,dora_wd=False,factor=4"), {"lora_method": "loha", "lokr_factor": None}),
        ((LYCORIS, "--network_args=algo=locon,dora_wd=True"), {"lora_method": "lora", "use_dora": True}),
        ((FLUX, "--network_args=train_blocks=single"), {"lora_blocks": ["single_transformer_blocks"]}),
        (
            (FLUX, "--network_args=train_double_block_indices=0-3,train_single_block_indices=none"),
            {"lora_blocks": ["transformer_blocks.0-3"]},
        ),
        ((LYCORIS, "--network_args=algo=ia3"), "algo=ia3: not trained here; lora, locon, loha, lokr are"),
        ((LYCORIS, "--network_args=full_matrix=True"), "full_matrix: not there"),
        (
            (LYCORIS, "--network_args=preset=mine.toml"),
            "preset=mine.toml: expected full, full-lin, attn-mlp, attn-only",
        ),
        ((LYCORIS, "--network_args=conv_dim=2"), "conv_dim: convolutions get factors"),
    ],
    ids=str,
)
def test_lycoris_and_blocks(words: tuple[str, ...], becomes: dict[str, Any] | str) -> None:
    if isinstance(becomes, str):
        with pytest.raises(ConfigError, match=becomes):
            config_of(*words)
        return
    config = config_of(*words)
    assert {name: getattr(config, name) for name in becomes} == becomes and config.use_lora


def test_defaults_are_theirs() -> None:
    config = config_of("--network_module=networks.lora")
    assert (config.train_batch_size, config.max_train_steps, config.learning_rate) == (1, 1600, 2e-6)
    assert (config.rank, config.lora_alpha, config.center_crop, config.report_to) == (4, 1.0, True, "none")
    assert (config.mixed_precision, config.max_grad_norm, config.adam_weight_decay) == ("no", 1.0, None)
    assert config_of("--network_alpha=0", "--use_lora").lora_alpha is None
    sd, xl = "Stable Diffusion 1.x and 2.x", "Stable Diffusion XL"
    assert KOHYA.of_model(sd, True) == {
        "validation_scheduler": "ddim", "train_text_encoder": True, "lora_layers": list(LAYERS),
    }  # fmt: skip
    assert "train_text_encoder" in KOHYA.of_model(sd, False) and "train_text_encoder" not in KOHYA.of_model(xl, False)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for name in ("train/10_sks dog/a.png", "train/10_sks dog/b.jpg", "train/notes/x.png", "reg/1_dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_dreambooth_command_line(photographs: Path) -> None:
    config = started(
        *("train_db.py", "--pretrained_model_name_or_path=m", f"--train_data_dir={photographs / 'train'}"),
        *(f"--reg_data_dir={photographs / 'reg'}", "--output_dir=out", "--output_name=dog", "--prior_loss_weight=1.0"),
        *("--resolution=512", "--train_batch_size=1", "--learning_rate=1e-6", "--max_train_steps=1600"),
        *("--use_8bit_adam", "--xformers", "--mixed_precision=bf16", "--cache_latents", "--gradient_checkpointing"),
    )
    assert config.like == "kohya" and not config.use_lora and config.use_8bit_adam
    assert (config.instance_data_dir, config.repeats) == (str(photographs / "train/10_sks dog"), 10)
    assert (config.instance_prompt, config.class_prompt) == ("sks dog", "dog")
    assert (config.class_data_dir, config.num_class_images) == (str(photographs / "reg/1_dog"), 1)
    assert config.with_prior_preservation and not config.use_captions


def test_several_subjects_and_captions(photographs: Path) -> None:
    (photographs / "train/2_ukj cat").mkdir()
    (photographs / "train/2_ukj cat/c.png").write_bytes(b"")
    (photographs / "train/2_ukj cat/c.txt").write_text("a cat, asleep")
    (photographs / "reg/3_cat").mkdir()
    (photographs / "reg/3_cat/1.png").write_bytes(b"")
    words = [f"--train_data_dir={photographs / 'train'}", "--caption_extension=.txt", "--shuffle_caption"]
    config = config_of(*words, f"--reg_data_dir={photographs / 'reg'}", ours=OURS[:1])
    assert config.concepts is not None and config.use_captions and config.shuffle_tags
    assert [(c.instance_prompt, c.class_prompt, c.repeats) for c in config.concepts] == [
        ("sks dog", "dog", 10), ("ukj cat", "cat", 2),
    ]  # fmt: skip
    plain = config_of(words[0], "--shuffle_caption", "--keep_tokens=1", "--caption_prefix=photo of", ours=OURS[:1])
    assert not plain.use_captions and not plain.shuffle_tags and plain.keep_tags == 0
    assert plain.concepts is not None and plain.concepts[0].instance_prompt == "photo of sks dog"
    before = config_of(*words[:2], "--caption_prefix=photo of", ours=OURS[:1])
    assert before.caption_template == "photo of {caption}"


@pytest.mark.parametrize(
    ("made", "words", "said"),
    [
        ("train/5_sks dog/a.caption", ["--caption_extension=.txt"], None),
        ("train/10_sks dog/a.tags", ["--caption_extension=.tags"], "captions are read from .txt and .caption"),
        ("reg/1_dog/1.caption", [], "class images are trained with their folder's words"),
        ("reg/2_cat/1.png", [], "2_cat: its words, 'cat', end no subject's"),
        ("train/4_a, b/c.png", ["--shuffle_caption"], "shuffle_caption: the folder's words hold commas"),
        ("reg/5_/a.gif", [], "holds no class images"),
    ],
)
def test_folders_that_cannot_be_said(photographs: Path, made: str, words: list[str], said: str | None) -> None:
    (photographs / made).parent.mkdir(exist_ok=True)
    (photographs / made).write_text("x")
    asked = [f"--train_data_dir={photographs / 'train'}", f"--reg_data_dir={photographs / 'reg'}", *words]
    if said is None:
        assert not config_of(*asked, ours=OURS[:1]).use_captions
        return
    with pytest.raises(ConfigError) as caught:
        config_of(*asked, ours=OURS[:1])
    assert said in str(caught.value)


def test_folders_that_are_none() -> None:
    with pytest.raises(ConfigError, match="train_data_dir: .*expected one with sub-folders such as '10_sks dog'"):
        config_of("--train_data_dir=nowhere", ours=OURS[:1])
    with pytest.raises(ConfigError, match="train_data_dir: given together with instance_data_dir"):
        config_of("--train_data_dir=nowhere")
