"""diffusers' scripts (examples/dreambooth, examples/advanced_diffusion_training): the names that all others share.

Where diffusers has a name, the setting here bears it; this is what is left, and it is understood whatever `like` says.
"""

from __future__ import annotations

from typing import Any

from .meaning import TOKEN, Meaning, Refused, Script, Settings, System, ignored, one_of, refused, same, several, switch

PIVOTAL = "pivotal tuning and textual inversion are not trained here; train_text_encoder trains the text encoders"
PRODIGY = "of Prodigy, which is not among the optimizers here; AdamW does not read it"
SCHEDULERS = {
    "ddimscheduler": "ddim",
    "ddpmscheduler": "ddpm",
    "pndmscheduler": "pndm",
    "dpmsolvermultistepscheduler": "dpmsolver++",
    "eulerdiscretescheduler": "euler",
    "flowmatcheulerdiscretescheduler": "euler",
    "unipcmultistepscheduler": "unipc",
}
"""A sampler's class -> its name here."""


def sampler(given: Any) -> Any:
    """A sampler by its class, as diffusers' scripts name it, or by our name."""
    spelt = str(given).strip().lower()
    if spelt.endswith("scheduler") and spelt not in SCHEDULERS:
        raise Refused(f"{given}: not among the samplers here; {', '.join(dict.fromkeys(SCHEDULERS.values()))} are")
    return SCHEDULERS.get(spelt, given)


def _report_to(given: Any) -> Settings:
    if "comet" in str(given):
        raise Refused("comet_ml is not among the trackers here; tensorboard, visualdl and wandb are")
    return {"report_to": given}


def _lr_scheduler(given: Any) -> Settings:
    if str(given) == "piecewise_constant":
        raise Refused(
            "piecewise_constant needs steps that no flag of diffusers' scripts can give; constant, linear, cosine, "
            "cosine_with_restarts, polynomial and constant_with_warmup are there"
        )
    return {"lr_scheduler": given}


def _buckets(given: Any) -> Settings:
    if ";" in str(given) or "," in str(given):
        return {"aspect_ratio_buckets": True, "bucket_shapes": given}
    return {"aspect_ratio_buckets": given}


def _optimizer(given: Any) -> Settings:
    if str(given).lower() != "adamw":
        raise Refused(f"{given}: not among the optimizers here; AdamW is (8 bits: use_8bit_adam)")
    return {}


NAMES: dict[str, Meaning] = {
    TOKEN: Meaning(
        "the Hub's token for this run",
        lambda given: {TOKEN: given},
        warning="a command line can be read by others on this machine; HF_TOKEN or a login keeps it.  It is written "
        "nowhere",
    ),
    "validation_scheduler": same("validation_scheduler", sampler),
    "report_to": several("`report_to`; comet_ml is refused", _report_to),
    "lr_scheduler": several("`lr_scheduler`; piecewise_constant is refused", _lr_scheduler),
    "aspect_ratio_buckets": several("`aspect_ratio_buckets`, and with sizes `bucket_shapes`", _buckets),
    "optimizer": several("AdamW; others are refused", _optimizer),
    "dataloader_num_workers": ignored("photographs are decoded and encoded once, before training"),
    "local_rank": ignored("the launcher's environment says it"),
    "set_grads_to_none": ignored("gradients are always freed after an update", "switch"),
    "upcast_before_saving": ignored("trained weights are float32 here, and saved so", "switch"),
    "offset_noise": several("`noise_offset=0.1`", lambda v: {"noise_offset": 0.1} if switch(v) else {}, "switch"),
    "output_kohya_format": ignored("a LoRA file in kohya's names is always written, under the folder's name", "switch"),
    "use_dora": refused("DoRA is not trained here; use_lora trains plain LoRA", kind="switch"),
    "use_blora": refused("B-LoRA is not trained here; lora_layers names the layers to train", kind="switch"),
    "lora_unet_blocks": refused("name the layers with lora_layers, whose endings may hold the block"),
    "offload": refused(
        "text encoders and autoencoder leave the device by themselves once they have encoded; there is no more to "
        "offload",
        kind="switch",
    ),
    "enable_npu_flash_attention": refused(
        "torch_npu is not used here; for Ascend cards there is the mindspore backend", kind="switch"
    ),
    "enable_flash_attention": ignored("the framework's own attention is as sparing of memory", "switch"),
    "class_labels_conditioning": one_of("class_labels_conditioning", {"timesteps": "timesteps"}),
    "clip_skip": refused("the words come from the layer that the model's pipeline takes them from; leave it out"),
    "train_text_encoder_ti": refused(PIVOTAL, kind="switch"),
    "enable_t5_ti": refused(PIVOTAL, kind="switch"),
    **{name: ignored("of pivotal tuning, which train_text_encoder_ti turns on") for name in (
        "token_abstraction",
        "num_new_tokens_per_abstraction",
        "initializer_concept",
        "train_text_encoder_ti_frac",
    )},
    "train_text_encoder_frac": refused("the text encoders train for the whole run", "1.0", "1"),
    "train_transformer_frac": refused("the transformer trains for the whole run", "1.0", "1"),
    "prodigy_beta3": ignored(PRODIGY),
    "prodigy_decouple": ignored(PRODIGY),
    "prodigy_use_bias_correction": ignored(PRODIGY),
    "prodigy_safeguard_warmup": ignored(PRODIGY),
    "do_fp8_training": refused(
        "weights are not kept in fp8 here; with LoRA, mixed_precision bf16 halves the frozen ones", kind="switch"
    ),
    "bnb_quantization_config_path": refused("frozen weights are not quantised here; leave it out"),
    "use_fsdp_text_encoder": refused("nothing is sharded here; leave it out", kind="switch"),
}  # fmt: skip


def of_model(family: str, lora: bool) -> Settings:
    """The defaults of the script for a family, where they are other than ours."""
    first = {"resolution": 512, **({"learning_rate": 5e-4, "validation_epochs": 50} if lora else {})}
    if family.startswith("Stable Diffusion 1"):
        return first
    if family.startswith("DeepFloyd IF"):
        return {**first, "text_encoder_use_attention_mask": False}
    newer = {
        "validation_epochs": 50,
        "learning_rate": 1e-4,
        "text_encoder_lr": 5e-6,
        "adam_weight_decay": 1e-4,
        "adam_weight_decay_text_encoder": 1e-3,
    }
    if family.endswith("XL"):
        return {**newer, "resolution": 1024}
    if family.startswith("Stable Diffusion 3"):
        return {**newer, "resolution": 512, "max_sequence_length": 77, "precondition_outputs": True}
    if family.startswith("Flux"):
        return {**newer, "resolution": 512, **({"lora_alpha": 4.0} if lora else {"max_sequence_length": 77})}
    return {}


def with_lora(values: Settings) -> Settings:
    """A rank says that LoRA trains: no script of a whole model has one."""
    return {"use_lora": True, **values} if "rank" in values else values


LORA = Script(settings={"use_lora": True})
DEFAULTS: dict[str, Any] = {"num_train_epochs": 1, "lr_warmup_steps": 500, "checkpoint_last": False}
DIFFUSERS = System(
    name="diffusers",
    about="diffusers' examples/dreambooth and examples/advanced_diffusion_training",
    backend="torch",
    scripts={
        "train_dreambooth.py": Script(),
        "train_dreambooth_sd3.py": Script(),
        "train_dreambooth_flux.py": Script(),
        **{
            f"train_dreambooth_lora{of}.py": LORA
            for of in ("", "_sdxl", "_sd3", "_flux", "_flux_advanced", "_sd15_advanced", "_sdxl_advanced")
        },
    },
    train=NAMES,
    defaults=DEFAULTS,
    of_model=of_model,
    combine=with_lora,
)
