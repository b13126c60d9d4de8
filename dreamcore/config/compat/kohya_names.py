"""What sd-scripts' flags make of settings here; `kohya_others` has those that make none.

Some are parts of one setting; these keep names of their own until `kohya_parts` joins them.
"""

from __future__ import annotations

from . import kohya_networks as networks
from . import kohya_values as v
from . import optimizer_names as optimizers
from .kohya_others import OTHERS
from .meaning import Meaning, one_of, same, several

PARTS: dict[str, Meaning] = {
    name: Meaning(words, lambda given, name=name: {name: given}, "switch" if switch else "value")  # type: ignore[misc]
    for name, words, switch in (
        ("train_data_dir", "photographs: each sub-folder REPEATS_WORDS is one of `concepts`", False),
        ("reg_data_dir", "class images: each sub-folder REPEATS_WORDS is a `class_data_dir`", False),
        ("dataset_config", "photographs: each subset is one of `concepts`, or a `class_data_dir`", False),
        ("dataset_repeats", "`repeats` of subsets that say none", False),
        ("caption_extension", "`use_captions` where such files lie: .txt or .caption, which is the default", False),
        ("caption_prefix", "before each prompt (`caption_template`)", False),
        ("caption_suffix", "behind each prompt (`caption_template`)", False),
        ("min_bucket_reso", "`bucket_shapes`", False),
        ("max_bucket_reso", "`bucket_shapes`", False),
        ("network_train_unet_only", "`train_text_encoder=false`", True),
        ("unet_lr", "`learning_rate`, and what that says is the text encoders'", False),
        ("output_name", "the last part of `output_dir`, and so the name of the LoRA file", False),
        ("dim_from_weights", "`rank` is that of network_weights, as it is where no network_dim is given", True),
        ("save_last_n_steps", "`checkpoints_total_limit`, as many as the interval allows", False),
        ("sample_prompts", "`validation_prompt` and what stands behind it, of a file with one prompt", False),
        ("sample_every_n_steps", "`validation_steps`", False),
        ("sample_every_n_epochs", "`validation_epochs`", False),
        ("sample_at_first", "done anyway", True),
        ("sample_sampler", "`validation_scheduler`, where images are drawn", False),
        ("validate_every_n_steps", "`validation_steps`", False),
        ("validate_every_n_epochs", "`validation_epochs`", False),
        ("v2", "`sd_version` of a model in one file; a folder says it itself", True),
        ("v_parameterization", "`sd_version` of a model in one file; a folder says it itself", True),
        ("timestep_sampling", "`weighting_scheme`, `logit_mean`, `logit_std`, `resolution_shift`", False),
        ("discrete_flow_shift", "`logit_mean`", False),
        ("sigmoid_scale", "`logit_std`", False),
        ("training_shift", "`logit_mean`", False),
        ("model_prediction_type", "raw, with Flux; others are refused", False),
        ("kohya_script", "sd3, flux or fine_tune: whose defaults, where no script's name says it", False),
    )
}
RATES: dict[str, Meaning] = {
    name: several("`text_encoder_lr`; 0 leaves the text encoders as they are", v.read_text_rates)
    for name in ("text_encoder_lr", "learning_rate_te")
}
NUMBERED: dict[str, Meaning] = {
    name: several("`text_encoder_lr`, which is one for all text encoders", lambda given, n=name: {n: given})  # type: ignore[misc]
    for name in ("text_encoder_lr1", "text_encoder_lr2", "learning_rate_te1", "learning_rate_te2")
}
NAMES: dict[str, Meaning] = {
    **PARTS,
    **RATES,
    **NUMBERED,
    # what is trained
    "network_module": several(
        "`use_lora`; others than networks.lora and lycoris.kohya are refused", networks.read_module
    ),
    "network_dim": same("rank"),
    "network_alpha": several("`lora_alpha`; 0 is the rank", v.read_alpha),
    "network_weights": Meaning(
        "`init_lora`; the product of its factors and alpha is kept, whatever network_dim and network_alpha are",
        lambda given: {"init_lora": given} if given else {},
    ),
    "network_args": several(
        "of lycoris.kohya `lora_method`, `use_dora`, `use_rslora`, `lokr_factor`, `lora_layers`; of networks.lora_flux "
        "`lora_blocks`; others are refused but for what is off",
        networks.read_arguments,
        "list",
    ),
    "stop_text_encoder_training": several("`train_text_encoder=false` below 0", v.read_text_encoder_end),
    "vae": same("pretrained_vae_model_name_or_path"),
    "torch_compile": same("compile", kind="switch"),
    "t5xxl_max_token_length": same("max_sequence_length"),
    "min_snr_gamma": several("`snr_gamma`, where it is not 0", v.read_gamma),
    # the updates
    "max_train_epochs": same("num_train_epochs"),
    "optimizer_type": several("`optimizer`; those that are not here are refused", optimizers.read_optimizer),
    "optimizer_args": several(
        "`adam_weight_decay`, `adam_beta1`, `adam_beta2`, `adam_epsilon`, and settings that bear the optimizer's name",
        lambda given: {"optimizer_args": list(v.arguments(given).items())},
        "list",
    ),
    "use_lion_optimizer": several("`optimizer=lion`", v.switch_of({"optimizer": "lion"}), "switch"),
    "lr_scheduler": several("`lr_scheduler`; those of other libraries are refused", v.read_course),
    "lr_warmup_steps": several("`lr_warmup_steps`; below 1, or with %, a share of the updates", v.read_warmup),
    "lr_scheduler_num_cycles": same("lr_num_cycles"),
    "lr_scheduler_power": same("lr_power"),
    # photographs and words
    "resolution": several("`resolution`, or `width` and `height` in that order", v.read_resolution),
    "enable_bucket": same("aspect_ratio_buckets", kind="switch"),
    "bucket_reso_steps": same("bucket_step"),
    "resize_interpolation": several("`image_interpolation_mode`", v.read_interpolation),
    "random_crop": several("`center_crop=false`, and a new crop for each sample", v.read_crop, "switch"),
    "flip_aug": same("random_flip", kind="switch"),
    "shuffle_caption": same("shuffle_tags", kind="switch"),
    "keep_tokens": same("keep_tags"),
    "caption_dropout_rate": same("caption_dropout"),
    "caption_extention": several("as caption_extension", lambda given: {"caption_extension": given}),
    "cache_latents_to_disk": several(
        "`cache_latents`; latent_cache_dir is the folder that keeps them",
        v.switch_of({"cache_latents": True}),
        "switch",
    ),
    "validation_split": same("validation_share"),
    "alpha_mask": Meaning(
        "`masked_loss`, `outside_weight=0`",
        v.switch_of({"masked_loss": True, "outside_weight": 0.0}),
        "switch",
        "the loss under a mask is scaled to the same mean for every image",
    ),
    "masked_loss": Meaning(
        "`masked_loss`, `outside_weight=0`; masks are NAME-mask.png, or alpha",
        v.switch_of({"masked_loss": True, "outside_weight": 0.0}),
        "switch",
        "masks are NAME-mask.png beside the photographs, and the loss is scaled to the same mean for every image",
    ),
    # what is written
    "save_every_n_steps": same("checkpointing_steps"),
    "save_every_n_epochs": same("checkpointing_epochs"),
    "save_last_n_epochs": same("checkpoints_total_limit"),
    "resume": same("resume_from_checkpoint"),
    "save_model_as": Meaning(
        "safetensors; ckpt and pt are refused",
        v.read_saved_as,
        warning="LoRA is written as OUTPUT_NAME.safetensors, a whole model as a folder in diffusers' layout",
    ),
    "save_precision": one_of("save_precision", {"float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}),
    "no_metadata": several("`lora_metadata=none`", v.switch_of({"lora_metadata": "none"}), "switch"),
    "log_with": same("report_to"),
    "logging_dir": several("`logging_dir`, from the working folder", lambda given: {"logging_dir": v.absolute(given)}),
    "huggingface_repo_id": several(
        "`push_to_hub`, `hub_model_id`", lambda given: {"push_to_hub": True, "hub_model_id": given}
    ),
    "huggingface_repo_visibility": several("`hub_private_repo`, which is the default there", v.read_visibility),
    "huggingface_token": several(
        "the Hub's token, kept nowhere; HF_TOKEN or the login serve too", lambda given: {"hub_token": given}
    ),
    **OTHERS,
}
