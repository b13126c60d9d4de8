"""How other trainers spell optimizers, and what sd-scripts' `optimizer_args` make of settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from .meaning import Refused, Settings, truth

Name = Literal["adamw", "adamw8bit", "adamw_schedulefree", "adafactor", "came", "lion", "muon", "prodigy", "sgd"]
SPELT: Mapping[str, str] = {
    "": "adamw",
    **{name.replace("_", ""): name for name in get_args(Name)},
    "schedulefreeadamw": "adamw_schedulefree",
    "adamwschedulefree": "adamw_schedulefree",
    "sgdnesterov": "sgd",
}
"""Names without capitals, underlines and the library before them -> ours."""


def read_optimizer(given: Any) -> Settings:
    """An optimizer by its name, or by its class as Python imports it: `bitsandbytes.optim.AdamW8bit`."""
    plain = re.sub(r"[\s_-]", "", str(given).rpartition(".")[2]).lower()
    if plain not in SPELT:
        paged = plain.startswith("paged") and plain.removeprefix("paged") in SPELT
        hint = f"; give {SPELT[plain.removeprefix('paged')]}, whose state stays on the device" if paged else ""
        raise Refused(f"{given}: not among the optimizers here; {', '.join(get_args(Name))} are{hint}")
    return {"optimizer": SPELT[plain]}


KOHYA: Mapping[str, Mapping[str, Any]] = {
    "prodigy": {"prodigy_use_bias_correction": False, "prodigy_safeguard_warmup": False},
    "adafactor": {"adafactor_relative_step": True, "adafactor_scale_parameter": True},
}
"""Defaults of the libraries' classes, which sd-scripts leaves as they are, where they are others than the settings'."""
ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "prodigy": {n: f"prodigy_{n}" for n in ("beta3", "decouple", "use_bias_correction", "safeguard_warmup", "d0")}
    | {"d_coef": "prodigy_d_coef"},
    "adafactor": {n: f"adafactor_{n}" for n in ("relative_step", "scale_parameter", "warmup_init")}
    | {"beta1": "adam_beta1"},
    "muon": {"momentum": "muon_momentum"},
    "sgd": {"momentum": "adam_beta1"},
    "adamw_schedulefree": {"warmup_steps": "lr_warmup_steps"},
}
"""By optimizer, its arguments beside those of all -> the settings."""
AS_HERE: Mapping[str, tuple[str, ...]] = {
    "growth_rate": ("inf", "float('inf')"),
    "slice_p": ("1",),
    "clip_threshold": ("1", "1.0"),
    "decay_rate": ("-0.8",),
    "nesterov": ("True", "true"),
    "ns_steps": ("5",),
    "adjust_lr_fn": ("match_rms_adamw",),
    "r": ("0", "0.0"),
    "weight_lr_power": ("2", "2.0"),
}
"""Arguments that no setting changes -> what they are here."""


def optimizer_arguments(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The settings of an optimizer's arguments.

    Raises:
        Refused: one that no setting is for.
    """
    made, own = dict[str, Any](KOHYA.get(name, {})), ARGUMENTS.get(name, {})
    for key, value in given.items():
        if key == "betas":
            made |= _betas(name, value)
        elif key == "weight_decay":
            made["adam_weight_decay"] = value
        elif key in own:
            made[own[key]] = None if value == "None" else value
        elif key == "eps" and name not in ("adafactor", "came"):
            made["adam_epsilon"] = value
        elif value not in AS_HERE.get(key, ()) and truth(value) is not False and value != "None":
            known = ", ".join(
                dict.fromkeys((*own, "weight_decay", "betas", *(() if name in ("adafactor",) else ("eps",))))
            )
            raise Refused(f"{key}: {name} here takes {known}; leave it out")
    return made


def _betas(name: str, value: str) -> dict[str, Any]:
    names = ("adam_beta1", "adam_beta2", *(("came_beta3",) if name == "came" else ()))
    parts = [part for part in re.split(r"[,\s()\[\]]+", value) if part]
    if len(parts) != len(names):
        example = ",".join(("0.9", "0.999", "0.9999")[: len(names)])
        raise Refused(f"betas: expected {len(names)} numbers, betas={example}; received {value!r}")
    return dict(zip(names, parts, strict=True))
