"""diffusers' scripts (examples/dreambooth, examples/advanced_diffusion_training): the names that all others share.

Where diffusers has a name, the setting here bears it; this is what is left, and it is understood whatever `like` says.
"""

from __future__ import annotations

from typing import Any

from . import quantization
from .meaning import TOKEN, Meaning, Refused, Script, Settings, System, ignored, one_of, refused, same, several, switch
from .optimizer_names import read_optimizer

B_LORA = "content,style"
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
    "optimizer": several("`optimizer`, as it is spelt; those that are not here are refused", read_optimizer),
    "dataloader_num_workers": ignored("photographs are decoded and encoded once, before training"),
    "local_rank": ignored("the launcher's environment says it"),
    "set_grads_to_none": ignored("gradients are always freed after an update", "switch"),
    "upcast_before_saving": ignored("trained weights are float32 here, and saved so", "switch"),
    "offset_noise": several("`noise_offset=0.1`", lambda v: {"noise_offset": 0.1} if switch(v) else {}, "switch"),
    "output_kohya_format": ignored("a LoRA file in kohya's names is always written, under the folder's name", "switch"),
    "use_blora": several(
        "`lora_blocks=content,style`: B-LoRA's", lambda v: {"lora_blocks": B_LORA} if switch(v) else {}, "switch"
    ),
    "lora_unet_blocks": same("lora_blocks"),
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
    "train_text_encoder_frac": refused("the text encoders train for the whole run", "1.0", "1"),
    **quantization.DIFFUSERS,
    "use_aspect_ratio_buckets": same("aspect_ratio_buckets", switch, "switch"),
    **{name: ignored("frozen text encoders leave the device once they have encoded", "switch") for name in (
        "use_fsdp_text_encoder", "fsdp_text_encoder",
    )},
    "remote_text_encoder": refused(
        "prompts are not sent to others; the text encoder leaves the device once it has encoded them "
        "(quantize_text_encoders makes it smaller)", kind="switch",
    ),
    "complex_human_instruction": refused("SANA's prompts follow the one that it was trained with; leave it out"),
    "system_prompt": refused("words come after the sentence that Lumina's pipeline puts before them; leave it out"),
    "validation_image": several("`validation_images`", lambda file: {"validation_images": [file]} if file else {}),
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
    if family.startswith("HiDream"):
        return {**newer, "resolution": 512}
    if family.startswith("Lumina"):
        return {**newer, "resolution": 512}
    if family == "Qwen-Image":
        return {**newer, "resolution": 512, "lora_alpha": 4.0}
    if family == "Z-Image":
        return {**newer, "resolution": 512, "lora_alpha": 4.0, "vae_encode_mode": "mode"}
    if family == "SANA":
        return {**newer, "resolution": 512, "lora_alpha": 4.0}
    if family == "Flux.1":
        return {**newer, "resolution": 512, **({"lora_alpha": 4.0} if lora else {"max_sequence_length": 77})}
    if family.startswith("Flux"):
        return {**newer, "resolution": 512, "lora_alpha": 4.0, "vae_encode_mode": "mode"}
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
        "train_dreambooth_b-lora_sdxl.py": Script(settings={"use_lora": True, "lora_blocks": B_LORA}),
        **{
            f"train_dreambooth_lora{of}.py": LORA
            for of in (
                *("", "_sdxl", "_sd3", "_flux", "_flux_kontext", "_flux2", "_flux2_klein", "_sana", "_hidream"),
                *("_lumina2", "_qwen_image", "_z_image"),
                *("_flux_advanced", "_sd15_advanced", "_sdxl_advanced"),
            )
        },
    },
    train=NAMES,
    defaults=DEFAULTS,
    of_model=of_model,
    combine=with_lora,
)
