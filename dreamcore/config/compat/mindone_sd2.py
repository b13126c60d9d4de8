"""MindONE's stable_diffusion_v2: `train_dreambooth.py` and `text_to_image.py` on MindSpore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .meaning import Meaning, Refused, Script, Settings, System, ignored, one_of, refused, same, several, switch, truth
from .optimizer_names import read_optimizer

MODES = one_of("mode", {"0": "graph", "1": "pynative", "graph": "graph", "pynative": "pynative"})
LOSS_SCALE = ignored("the loss scale is dynamic and finds its own level")
CONSTANT = ignored("the rate is constant in that script, whatever it says")
VERSIONS = ("1.5", "2.0", "2.0-v", "2.1", "2.1-v")


def _betas(given: Any) -> Settings:
    both = [part for part in str(given).strip("[]() ").replace(",", " ").split() if part]
    if len(both) != 2:
        raise Refused(f"expected two numbers, 0.9,0.999; received {given!r}")
    return {"adam_beta1": both[0], "adam_beta2": both[1]}


def _target(given: Any) -> Settings:
    devices = {"ascend": "ascend", "cpu": "cpu", "gpu": "gpu"}
    if str(given).lower() not in devices:
        raise Refused(f"expected Ascend, GPU or CPU; received {given!r}")
    return {} if str(given) == "Ascend" else {"device": devices[str(given).lower()]}


def _samples_folder(given: Any) -> Settings:
    return {"output_dir": str(Path(str(given)) / "samples")}


def _sampler(name: str) -> Meaning:
    return several(f"`scheduler={name}`", lambda given: {"scheduler": name} if switch(given) else {}, "switch")


PARTS = {
    "pretrained_model_path": "the folder of pretrained_model_file",
    "pretrained_model_file": "`pretrained_model_name_or_path`, in pretrained_model_path",
    "lora_ft_unet": "what LoRA always trains here",
    "lora_ft_text_encoder": "`train_text_encoder`, with use_lora",
    "clip_grad": "`max_grad_norm` where it is on, else 0",
    "n_iter": "`num_images`, times n_samples",
    "n_samples": "`num_images`, times n_iter; `batch_size`",
}
"""Names that are parts of a setting -> their meaning."""


TRAIN_PARTS = ("pretrained_model_path", "pretrained_model_file", "lora_ft_unet", "lora_ft_text_encoder", "clip_grad")
SWITCHES = ("lora_ft_unet", "lora_ft_text_encoder", "clip_grad")


def _part(name: str) -> Meaning:
    return Meaning(PARTS[name], lambda given: {name: switch(given) if name in SWITCHES else given})


def _combine(values: Settings) -> Settings:
    """The settings that `PARTS` come to."""
    left = dict(values)
    if "clip_grad" in left or "max_grad_norm" in left:
        left["max_grad_norm"] = left.get("max_grad_norm", 1.0) if left.pop("clip_grad", False) else 0.0
    encoder, denoiser = left.pop("lora_ft_text_encoder", None), left.pop("lora_ft_unet", None)
    if not truth(left.get("use_lora", False)):
        if encoder or denoiser:
            raise Refused(f"{'lora_ft_text_encoder' if encoder else 'lora_ft_unet'}: has no use without use_lora")
    elif denoiser is False:
        raise Refused("lora_ft_unet: LoRA always trains the denoiser here; leave it out")
    else:
        left["train_text_encoder"] = bool(encoder)
    folder, file = left.pop("pretrained_model_path", None), left.pop("pretrained_model_file", None)
    if folder or file:
        left["pretrained_model_name_or_path"] = str(Path(str(folder or "")) / str(file or ""))
    times, together = left.pop("n_iter", None), left.pop("n_samples", None)
    if together is not None or times is not None:
        try:
            left |= {"num_images": int(times or 2) * int(together or 4), "batch_size": int(together or 4)}
        except ValueError:
            raise Refused(f"n_iter, n_samples: expected whole numbers; received {times!r}, {together!r}") from None
    return left


MODEL = {
    "version": one_of("sd_version", {v: v for v in VERSIONS}, instead="; 1.5-wukong needs Chinese words"),
    "model_config": same("original_config"),
    "device_target": several("`device`", _target),
}

MINDONE_SD2 = System(
    name="mindone-sd2",
    about="MindONE's examples/stable_diffusion_v2",
    backend="mindspore",
    scripts={"train_dreambooth.py": Script(), "text_to_image.py": Script("generate")},
    configuration=("train_config",),
    combine=_combine,
    train={
        **MODEL,
        **{name: _part(name) for name in TRAIN_PARTS},
        "mode": MODES,
        "use_parallel": ignored("the launcher's environment says it", "value"),
        "lora_fp16": ignored("LoRA's factors are float32 here, and written so"),
        "output_path": same("output_dir"),
        "scale": same("prior_guidance_scale"),
        "sampling_steps": same("prior_num_inference_steps"),
        "random_crop": several(
            "`center_crop=false`, and a flip with it",
            lambda v: {"center_crop": not switch(v), "random_flip": switch(v)},
        ),
        "image_size": same("resolution"),
        "callback_size": same("logging_steps"),
        "ckpt_save_interval": same("checkpointing_epochs"),
        "warmup_steps": CONSTANT,
        "start_learning_rate": same("learning_rate"),
        "end_learning_rate": CONSTANT,
        "decay_steps": CONSTANT,
        "init_loss_scale": LOSS_SCALE,
        "loss_scale_factor": LOSS_SCALE,
        "scale_window": LOSS_SCALE,
        "optim": several("`optimizer`; those that are not here are refused", read_optimizer),
        "betas": several("`adam_beta1`, `adam_beta2`", _betas, "list"),
        "weight_decay": same("adam_weight_decay"),
        "log_level": ignored("what a run says is the same at every level"),
    },
    generate={
        **MODEL,
        **{name: _part(name) for name in ("n_iter", "n_samples")},
        "ms_mode": MODES,
        "data_path": same("prompt_file"),
        "negative_data_path": refused("write `--n WORDS` behind each prompt in data_path"),
        "output_path": several("`output_dir`, with /samples", _samples_folder),
        "sampling_steps": same("num_inference_steps"),
        "ddim_eta": refused("DDIM is deterministic here", "0", "0.0"),
        "support_long_prompts": refused("words beyond the text encoder's window are cut, and said so", kind="value"),
        "H": same("height"),
        "W": same("width"),
        "n_rows": ignored("the sheet's columns follow from the images"),
        "scale": same("guidance_scale"),
        "from_file": same("prompt_file"),
        "config": same("original_config"),
        "use_lora": ignored("lora_ckpt_path says it"),
        "lora_ft_unet": ignored("the file says which networks it changes"),
        "lora_ft_text_encoder": ignored("the file says which networks it changes"),
        "lora_rank": ignored("the file says it"),
        "ckpt_path": same("pretrained_model_name_or_path"),
        "lora_ckpt_path": same("lora"),
        "ti_ckpt_path": refused("textual inversion is not read here"),
        "skip_grid": several("`contact_sheet=false`", lambda v: {"contact_sheet": not switch(v)}, "switch"),
        "skip_save": refused(
            "images are always saved; there is `python -m benchmarks` to measure speed", kind="switch"
        ),
        "fixed_code": refused("each image has a seed of its own", kind="switch"),
        "check_safety": refused("images are not judged here", kind="switch"),
        "add_watermark": refused("images bear no watermark here", kind="switch"),
        "log_level": ignored("what is said is the same at every level"),
        "ddim": _sampler("ddim"),
        "plms": _sampler("pndm"),
        "dpm_solver": _sampler("dpmsolver"),
        "dpm_solver_pp": _sampler("dpmsolver++"),
        "uni_pc": _sampler("unipc"),
    },
    defaults={
        "output_dir": "output",
        "prior_guidance_scale": 9.0,
        "with_prior_preservation": True,
        "num_class_images": 200,
        "repeats": 40,
        "center_crop": True,
        "resolution": 512,
        "train_text_encoder": True,
        "train_batch_size": 2,
        "learning_rate": 5e-6,
        "max_grad_norm": 0.0,
        "seed": 3407,
        "num_train_epochs": 8,
        "checkpointing_epochs": 1,
        "checkpoints_total_limit": 10,
        "layout": "mindone-sd2",
    },
    generates={
        "prompt": "A cute wolf in winter forest",
        "num_images": 8,
        "batch_size": 4,
        "num_inference_steps": 20,
        "scheduler": "dpmsolver++",
        "guidance_scale": 9.0,
        "height": 512,
        "width": 512,
        "seed": 42,
        "output_dir": "output/samples",
    },
)
