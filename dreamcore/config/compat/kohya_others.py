"""The flags of sd-scripts that make no setting: with the reason why they change nothing, or what to use instead."""

from __future__ import annotations

from . import quantization
from .kohya_values import read_clip_skip, unless
from .meaning import Meaning, Refused, Settings, ignored, several

NOT_MERGED = (
    "LoRA files are not merged into the model before training; `dreambooth convert merge` makes such a model, and "
    "network_weights begins with a file's factors"
)
HALF = "trained weights stay in float32; mixed_precision bf16 or fp16 halves the arithmetic's memory"
FROZEN = "activations are not kept on the host; mixed_precision, gradient_checkpointing and blocks_to_swap are there"
SWAPPED = "give blocks_to_swap, which counts blocks of either kind"
FOLDER = (
    "give a folder in diffusers' layout, or a model's id on the Hub, as pretrained_model_name_or_path, which brings it"
)
HUBER = "of Huber's loss, which loss_type turns on"
SHARDED = "DeepSpeed is not used here; over several processes, shard optimizer is ZeRO's first stage"
EVERY_LAYER = "layers train at one rate; leave it out"


def _secret(given: object) -> Settings:
    if given == "":
        return {}
    raise Refused("a secret is not for command lines and files; set WANDB_API_KEY, or use wandb login")


def _switches(why: str, *names: str) -> dict[str, Meaning]:
    return {name: unless(why, kind="switch") for name in names}


def _nothing(why: str, *names: str, switch: bool = False) -> dict[str, Meaning]:
    return {name: ignored(why, "switch" if switch else "value") for name in names}


NOTHING: dict[str, Meaning] = {
    **_nothing(
        "the framework's own attention is as sparing of memory", "xformers", "sdpa", "mem_eff_attn", switch=True
    ),
    **_nothing("the framework's own attention is as sparing of memory", "diffusers_xformers", switch=True),
    **_nothing("the autoencoder computes in float32", "no_half_vae", switch=True),
    **_nothing("kept latents are named by content, and checked", "skip_cache_check", switch=True),
    **_nothing("photographs are looked at once, before training", "cache_info", switch=True),
    **_nothing("photographs are decoded and encoded once, before training", "max_data_loader_n_workers"),
    **_nothing("photographs are decoded once, before training", "persistent_data_loader_workers", switch=True),
    **_nothing(
        "prompts are embedded once wherever text encoders do not train", "cache_text_encoder_outputs", switch=True
    ),
    **_nothing("prompts are embedded once, into memory", "cache_text_encoder_outputs_to_disk", switch=True),
    **_nothing("prompts are embedded once, into memory", "text_encoder_batch_size"),
    **_nothing("networks leave the device by themselves once they have served", "lowram", "highvram", switch=True),
    **_nothing("weights are read the quickest way", "disable_mmap_load_safetensors", switch=True),
    **_nothing("the tokenizer comes with the model", "tokenizer_cache_dir"),
    **_nothing("a checkpoint holds weights and state", "save_state", "save_state_on_train_end", switch=True),
    **_nothing("models are written as safetensors", "use_safetensors", "mem_eff_save", switch=True),
    **_nothing("the finished model of a full training has its text encoders", "save_clip", "save_t5xxl", switch=True),
    **_nothing("a run is published once it is done", "async_upload", switch=True),
    **_nothing("the settings are in config.yaml of the run's folder, and trackers get them", "log_config", switch=True),
    **_nothing("the run bears its folder's name", "log_prefix", "wandb_run_name", "log_tracker_name"),
    **_nothing("what a run says is the same at every level", "console_log_level", "console_log_file"),
    **_nothing("what a run says is plain text", "console_log_simple", switch=True),
    **_nothing("the launcher sees to it", "ddp_timeout"),
    **_nothing(
        "gradients are summed as the framework sums them",
        "ddp_gradient_as_bucket_view",
        "ddp_static_graph",
        switch=True,
    ),
    **_nothing("of multires_noise_iterations, which turns it on", "multires_noise_discount"),
    **_nothing(HUBER, "huber_schedule", "huber_c", "huber_scale"),
    **_nothing("of token_warmup_step, which turns it on", "token_warmup_min"),
    "base_weights_multiplier": ignored("of base_weights, which is refused", "list"),
    **_nothing("of ip_noise_gamma, which is refused", "ip_noise_gamma_random_strength", switch=True),
    **_nothing(
        "of schedules that are not here", "lr_decay_steps", "lr_scheduler_timescale", "lr_scheduler_min_lr_ratio"
    ),
    **_nothing("of initial_step and initial_epoch, which are refused", "skip_until_initial_step", switch=True),
    **_nothing("which photographs are held out follows from seed", "validation_seed"),
    **_nothing("the T5 computes in the precision that fits it", "t5xxl_dtype"),
    **_nothing("text encoders leave the device once they have served", "t5xxl_device"),
    **_nothing("latents are always checked", "skip_latents_validity_check", switch=True),
    **_nothing(
        "of the checker of dataset_config, a program of its own",
        *("support_controlnet", "support_dreambooth", "support_dropout", "support_finetuning"),
        switch=True,
    ),
    **{
        name: ignored("not written into the file", warning="is not written into the file")
        for name in (
            *("metadata_description", "metadata_license"),
            *("metadata_tags", "metadata_usage_hint", "metadata_thumbnail", "metadata_merged_from"),
            *("metadata_trigger_phrase", "metadata_preprocessor", "metadata_is_negative_embedding"),
        )
    },
}

METHOD: dict[str, Meaning] = {
    "network_dropout": unless("dropout there acts between the factors, here before them; lora_dropout is that", "0.0"),
    "base_weights": unless(NOT_MERGED, kind="list"),
    **_switches("text encoders train beside the denoiser, not alone; leave it out", "network_train_text_encoder_only"),
    "scale_weight_norms": unless("factors are not scaled down; lower the learning rate", "0.0"),
    "block_lr": unless(EVERY_LAYER),
    "num_last_block_to_freeze": unless("all layers train, or with lora_blocks some of LoRA's"),
    **_switches("the T5 never trains", "train_t5xxl"),
    "learning_rate_te3": unless("the T5 never trains", "0.0"),
    **quantization.KOHYA,
    **_switches(FROZEN, "cpu_offload_checkpointing"),
    **_switches(SWAPPED, "split_mode"),
    **{name: unless(SWAPPED) for name in ("double_blocks_to_swap", "single_blocks_to_swap")},
    **_switches(HALF, "full_fp16", "full_bf16"),
    **_switches(SHARDED, "deepspeed", "zero3_init_flag", "zero3_save_16bit_model", "fp16_master_weights_and_gradients"),
    **{
        name: unless(SHARDED)
        for name in (
            *("zero_stage", "offload_optimizer_device", "offload_optimizer_nvme_path"),
            *("offload_param_device", "offload_param_nvme_path"),
        )
    },
    **{name: unless(FOLDER) for name in ("clip_l", "clip_g", "t5xxl", "ae")},
    "model_type": unless("Chroma is not trained here; Flux.1 is", "flux"),
    "controlnet_model_name_or_path": unless("ControlNets are not trained here; leave it out"),
    "dynamo_backend": unless("compile uses the framework's own compiler", "inductor", "no"),
    "clip_skip": several("1; others are refused", read_clip_skip),
    "max_token_length": unless("prompts are cut at the text encoder's 75 tokens, and that is said", "75", "None"),
    **_switches("prompts are padded, as the model's pipeline pads them", "no_token_padding"),
    **_switches("the text encoders see padding, as the pipelines' do", "apply_t5_attn_mask", "apply_lg_attn_mask"),
    **_switches("positions are embedded as the model does it", "enable_scaled_pos_embed"),
    "pos_emb_random_crop_rate": unless("positions are embedded as the model does it", "0.0"),
    **_switches("embeddings are kept in memory; leave it out", "use_t5xxl_cache_only"),
}  # fmt: skip
LOSS: dict[str, Meaning] = {
    "loss_type": unless("the loss is the mean square; give l2", "l2"),
    **_switches(
        "timesteps are weighed by min_snr_gamma alone; leave it out",
        *("debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred"),
    ),
    "v_pred_like_loss": unless("timesteps are weighed by min_snr_gamma alone; leave it out", "0.0"),
    **_switches("noise levels are those of the model's scheduler_config.json", "zero_terminal_snr"),
    "min_timestep": unless("all timesteps are trained; leave it out", "0"),
    "max_timestep": unless("all timesteps are trained; leave it out", "1000"),
    "adaptive_noise_scale": unless("noise_offset is one amount for all images", "0.0"),
    **_switches("noise_offset is one amount for all samples", "noise_offset_random_strength"),
    "multires_noise_iterations": unless("noise has no pyramids; noise_offset is there"),
    "ip_noise_gamma": unless("inputs are not perturbed besides; noise_offset is there", "0.0"),
    **_switches("give fused_backward_pass with max_grad_norm 0", "blockwise_fused_optimizers"),
    "fused_optimizer_groups": unless("give fused_backward_pass with max_grad_norm 0"),
    "lr_scheduler_type": unless("courses of other libraries are not known; lr_scheduler names those here"),
    "lr_scheduler_args": unless("lr_scheduler_num_cycles and lr_scheduler_power are there", kind="list"),
}
DATA: dict[str, Meaning] = {
    **_switches("colours are not changed; leave it out", "color_aug"),
    "face_crop_aug_range": unless("faces are not looked for; subject_crop keeps what a mask shows"),
    **_switches("photographs are always scaled to their bucket; leave it out", "bucket_no_upscale"),
    "conditioning_data_dir": unless("put masks beside the photographs, as NAME-mask.png"),
    "caption_separator": unless("commas part a caption's tags", ",", ", "),
    "keep_tokens_separator": unless("keep_tokens says how many tags keep their places"),
    "secondary_separator": unless("commas part a caption's tags"),
    **_switches("captions are taken as they are; write one file for each photograph", "enable_wildcard"),
    **_switches("words are not weighed; leave it out", "weighted_captions"),
    "caption_dropout_every_n_epochs": unless("caption_dropout_rate leaves words out at random"),
    "caption_tag_dropout_rate": unless("caption_dropout_rate leaves all words of a sample out", "0.0"),
    "token_warmup_step": unless("captions are trained whole from the beginning", "0.0"),
    "in_json": unless("captions are read from NAME.txt beside each photograph; write them there"),
    "dataset_class": unless("photographs are read from folders; give train_data_dir or dataset_config"),
    **_switches("`dreambooth data` shows the photographs as training would see them", "debug_dataset"),
    "max_validation_steps": unless("all that is held out is validated; leave it out"),
}
OUTPUT: dict[str, Meaning] = {
    "save_n_epoch_ratio": unless("give save_every_n_epochs"),
    "save_last_n_epochs_state": unless("a checkpoint is weights and state together; give save_last_n_epochs"),
    "save_last_n_steps_state": unless("a checkpoint is weights and state together; give save_last_n_steps"),
    "initial_epoch": unless("resume goes on where a run stopped; leave it out", "1"),
    "initial_step": unless("resume goes on where a run stopped; leave it out"),
    **_switches("checkpoints are not fetched from the Hub; resume takes a folder", "resume_from_huggingface"),
    **_switches("checkpoints stay on this machine; the finished model is published", "save_state_to_huggingface"),
    "huggingface_repo_type": unless("models are published as models", "model"),
    "huggingface_path_in_repo": unless("the model lies at its repository's root; leave it out"),
    "log_tracker_config": unless("trackers read their own variables, such as WANDB_PROJECT"),
    "wandb_api_key": Meaning("refused: a secret; WANDB_API_KEY, or wandb login", _secret),
    **_switches("config.yaml in the run's folder holds all settings", "output_config"),
}
OTHERS: dict[str, Meaning] = {**NOTHING, **METHOD, **LOSS, **DATA, **OUTPUT}
