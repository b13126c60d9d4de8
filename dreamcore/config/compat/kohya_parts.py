"""Settings that several flags of sd-scripts make together: rates, lengths, buckets, noise, checkpoints, names.

Each function takes what it joins out of `values` and puts the settings there; what cannot be said here it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...io.names import ONE_FILE
from .kohya_networks import networks
from .kohya_values import number
from .meaning import Refused, switch, truth
from .optimizer_names import optimizer_arguments

Values = dict[str, Any]
STEPS, RATE = 1600, 2e-6
"""Updates and learning rate where none are given."""
DEFAULTS: Mapping[str, Any] = {
    "train_batch_size": 1,
    "max_train_steps": STEPS,
    "learning_rate": RATE,
    "rank": 4,
    "lora_alpha": 1.0,
    "center_crop": True,
    "num_validation_images": 1,
    "validation_num_inference_steps": 30,
    "report_to": "none",
}
FLOW = ("timestep_sampling", "discrete_flow_shift", "sigmoid_scale", "training_shift", "model_prediction_type")
NATIVE_SHIFT = 3.0
"""By which the schedulers of Stable Diffusion 3 and 3.5 shift noise levels."""


def rates(values: Values) -> None:
    """One rate for all text encoders; `unet_lr` is the denoiser's, and what `learning_rate` says then the others'.

    0 leaves text encoders as they are; beside `network_train_unet_only` their rate means nothing.  A rate says
    that they train, but for the scripts that want `train_text_encoder` besides.
    """
    asked = values.get("kohya_script") == "fine_tune" or {"learning_rate_te1", "learning_rate_te2"} & values.keys()
    own = [str(rate) for rate in values.pop("text_encoder_rates", [])]
    for first, second in (("text_encoder_lr1", "text_encoder_lr2"), ("learning_rate_te1", "learning_rate_te2")):
        given = {name: str(values.pop(name)) for name in (first, second) if name in values}
        base = str(values.get("learning_rate", RATE))
        own += [given.get(first, base), given.get(second, base)] if given else []
    if len({number("text_encoder_lr", rate) for rate in own}) > 1:
        raise Refused(f"text_encoder_lr: text encoders train at one rate; received {', '.join(own)}; give one")
    if own and number("text_encoder_lr", own[0]) == 0:
        values["train_text_encoder"], own = False, []
    if switch(values.pop("network_train_unet_only", False)):
        values["train_text_encoder"], own = False, []
    denoiser, base = values.pop("unet_lr", None), values.get("learning_rate", RATE)
    if denoiser is not None and number("unet_lr", denoiser) == 0:
        raise Refused("unet_lr: the denoiser always trains; give a rate above 0")
    still = truth(values.get("train_text_encoder")) is False
    if denoiser is not None:
        values["learning_rate"] = denoiser
        own = own or ([] if still or number("learning_rate", base) == number("unet_lr", denoiser) else [base])
    if own and not still:
        values["text_encoder_lr"] = own[0]
        values |= {} if asked else {"train_text_encoder": True}


def optimizer(values: Values) -> None:
    """The optimizer's arguments, for which its defaults are the libraries'; Adafactor's own rate takes the place of any
    that is given."""
    name = str(values.get("optimizer", "adamw"))
    try:
        values |= optimizer_arguments(name, dict(values.pop("optimizer_args", ())))
    except Refused as error:
        raise Refused(f"optimizer_args: {error}") from None
    if name == "adafactor" and truth(values.get("adafactor_warmup_init")):
        values["adafactor_relative_step"] = True
    if name == "adafactor" and truth(values["adafactor_relative_step"]):
        for other in ("learning_rate", "text_encoder_lr", *(f"lr_{n}" for n in ("scheduler", "warmup_steps", "power"))):
            values.pop(other, None)


def first_factors(values: Values) -> None:
    """The rank of `network_weights`, whatever else is given, where `dim_from_weights` asks for it."""
    if not switch(values.pop("dim_from_weights", False)):
        return
    if "init_lora" not in values:
        raise Refused("dim_from_weights: needs network_weights")
    values.pop("rank", None)


def length(values: Values) -> None:
    """Epochs win over updates; a warm-up that is a share of the updates needs their number."""
    if "num_train_epochs" in values:
        values.pop("max_train_steps", None)
    share = values.pop("lr_warmup_share", None)
    if share is None:
        return
    if "num_train_epochs" in values:
        raise Refused("lr_warmup_steps: a share of epochs is not known before the photographs are; give updates")
    values["lr_warmup_steps"] = int(share * number("max_train_steps", values.get("max_train_steps", STEPS)))


def size(values: Values) -> tuple[int, int] | None:
    """(width, height) of the training images, where they are given."""
    width, height = (values.get(side, values.get("resolution")) for side in ("width", "height"))
    if width is None or height is None:
        return None
    return int(number("resolution", width)), int(number("resolution", height))


def buckets(values: Values) -> None:
    """The shapes that sd-scripts makes: sides from `min_bucket_reso` to `max_bucket_reso`, areas up to `resolution`'s.

    A photograph goes to the shape nearest to its own; there by the difference of width / height, here by their
    ratio, so that one between two shapes may go to the other.
    """
    low, high = values.pop("min_bucket_reso", 256), values.pop("max_bucket_reso", 1024)
    if not switch(values.get("aspect_ratio_buckets", False)):
        values.pop("bucket_step", None)
        return
    if (whole := size(values)) is None or "bucket_shapes" in values:
        return
    step = int(number("bucket_reso_steps", values.pop("bucket_step", 64)))
    low, high = int(number("min_bucket_reso", low)), int(number("max_bucket_reso", high))
    if step < 1 or low < 1:
        raise Refused(f"bucket_reso_steps and min_bucket_reso: expected numbers above 0; received {step} and {low}")
    low, high = max(low // step, 1) * step, -(-high // step) * step
    if high < max(whole):
        raise Refused(f"max_bucket_reso: {high} is less than the resolution, {max(whole)}; raise it")
    area, square = whole[0] * whole[1], int(math.sqrt(whole[0] * whole[1])) // step * step
    shapes = {(square, square)}
    for width in range(low, high + 1, step):
        height = min(high, area // width // step * step)
        shapes |= {(width, height), (height, width)} if height >= low else set()
    values["bucket_shapes"] = ";".join(f"{height},{width}" for height, width in sorted(shapes))


def samples_of_photographs(values: Values) -> None:
    """Class images are cropped as the others; tags that keep their places mean nothing where none is shuffled."""
    if values.get("with_prior_preservation") and values.get("instance_variants") == 0:
        values.setdefault("class_variants", 0)
    if not switch(values.get("shuffle_tags", False)):
        values.pop("keep_tags", None)


def checkpoints(values: Values) -> None:
    """One interval; `save_last_n_steps` keeps what is that near the end, the one at its edge too."""
    within = values.pop("save_last_n_steps", None)
    if {"checkpointing_steps", "checkpointing_epochs"} <= values.keys():
        raise Refused("save_every_n_epochs: given together with save_every_n_steps; give one or the other")
    if within is None:
        return
    if "checkpointing_steps" not in values:
        raise Refused("save_last_n_steps: needs save_every_n_steps; or give save_last_n_epochs")
    every = number("save_every_n_steps", values["checkpointing_steps"])
    values["checkpoints_total_limit"] = int(number("save_last_n_steps", within) // max(every, 1)) + 1


def places(values: Values) -> None:
    """A run is the folder OUTPUT_DIR/OUTPUT_NAME, as several runs share the folder there; its log has that name too."""
    name = values.pop("output_name", None)
    if name is not None:
        values["output_dir"] = str(Path(str(values.get("output_dir", "."))) / str(name))
    if "logging_dir" in values:
        values.setdefault("report_to", "tensorboard")
        if name is not None:
            values["logging_dir"] = str(Path(values["logging_dir"]) / str(name))
    if "hub_model_id" in values:
        values.setdefault("hub_private_repo", True)
    elif "hub_private_repo" in values:
        values.pop("hub_private_repo")


def model(values: Values) -> None:
    """What a model is, its own configuration says; where it is one file, only the flags know."""
    second, velocity = (switch(values.pop(name, False)) for name in ("v2", "v_parameterization"))
    if second and Path(str(values.get("pretrained_model_name_or_path", ""))).suffix.lower() in ONE_FILE:
        values.setdefault("sd_version", "2.1-v" if velocity else "2.1")


def noise(values: Values) -> None:
    """Flow matching's timesteps, for the scripts of Flux and Stable Diffusion 3."""
    script = values.pop("kohya_script", None)
    given = {name: values.pop(name) for name in FLOW if name in values}
    if script == "fine_tune":
        values.setdefault("train_text_encoder", False)
    elif script == "sd3" or "training_shift" in given:
        _noise_of_sd3(values, given)
    elif script == "flux" or given:
        _noise_of_flux(values, given)
    elif values.get("weighting_scheme") == "uniform":
        values["weighting_scheme"] = "none"


def _number(values: Mapping[str, Any], name: str, default: float) -> float:
    return number(name, values.get(name, default))


def _shift(given: Mapping[str, Any], name: str, default: float) -> float:
    found = _number(given, name, default)
    if found <= 0:
        raise Refused(f"{name}: expected a number above 0; received {found}")
    return found


def _noise_of_flux(values: Values, given: Mapping[str, Any]) -> None:
    """A shift by s is, of a logistic normal, one of its mean by ln s (towards noise: downwards in `logit_mean`).

    The network's answer is the velocity (`raw`); the others there are compared with what they do not estimate.
    """
    if (kind := str(given.get("model_prediction_type", "sigma_scaled"))) != "raw":
        raise Refused(f"model_prediction_type: {kind} is not there, and is the default; give raw")
    sampling = str(given.get("timestep_sampling", "sigma"))
    scheme = str(values.pop("weighting_scheme", "uniform"))
    mean, deviation = (values.pop(name, default) for name, default in (("logit_mean", 0.0), ("logit_std", 1.0)))
    scale = _number(given, "sigmoid_scale", 1.0)
    shift = _shift(given, "discrete_flow_shift", 3.0)
    if sampling != "sigma" or scheme != "mode":
        values.pop("mode_scale", None)
    normal: tuple[float, float] | None = None
    if sampling in ("sigmoid", "shift", "flux_shift"):
        normal = (-math.log(shift) if sampling == "shift" else 0.0, scale)
        values |= {"resolution_shift": True} if sampling == "flux_shift" else {}
    elif sampling == "sigma" and scheme == "logit_normal":
        normal = (number("logit_mean", mean) - math.log(shift), number("logit_std", deviation))
    elif sampling == "sigma" and shift != 1:
        raise Refused(
            f"timestep_sampling: sigma, shifted by {shift:g}, is not there, and is the default; give flux_shift, "
            "shift, sigmoid or uniform"
        )
    elif sampling not in ("sigma", "uniform"):
        raise Refused(f"timestep_sampling: expected flux_shift, shift, sigmoid or uniform; received {sampling!r}")
    values["weighting_scheme"] = "mode" if sampling == "sigma" and scheme == "mode" else "none"
    if normal is not None:
        values |= {"weighting_scheme": "logit_normal", "logit_mean": round(normal[0], 9) + 0.0, "logit_std": normal[1]}


def _noise_of_sd3(values: Values, given: Mapping[str, Any]) -> None:
    """There noise levels are drawn and shifted by `training_shift`, and `logit_mean` rises with noise; here places in
    the scheduler's table, which is shifted already and falls."""
    scheme = str(values.pop("weighting_scheme", "uniform"))
    shift = _shift(given, "training_shift", 1.0)
    mean = _number(values, "logit_mean", 0.0)
    if scheme == "logit_normal":
        values["logit_mean"] = round(math.log(NATIVE_SHIFT / shift) - mean, 9) + 0.0
    elif scheme == "mode" or shift != NATIVE_SHIFT:
        raise Refused(
            f"training_shift: weighting_scheme {scheme} with a shift of {shift:g} is not there; give training_shift 3, "
            "which the models have, or weighting_scheme logit_normal"
        )
    values["weighting_scheme"] = "none" if scheme == "uniform" else scheme
    if scheme != "logit_normal":
        for name in ("logit_mean", "logit_std"):
            values.pop(name, None)
    if scheme != "mode":
        values.pop("mode_scale", None)


PARTS: tuple[Callable[[Values], None], ...] = (
    networks,
    rates,
    optimizer,
    first_factors,
    length,
    samples_of_photographs,
    buckets,
    noise,
    checkpoints,
    places,
    model,
)
