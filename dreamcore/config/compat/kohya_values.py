"""How sd-scripts spell values: `key=value` lists, sizes, shares, courses of the rate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .meaning import Meaning, Refused, Settings, refused, truth

COURSES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
SAMPLERS = {
    "ddim": "ddim",
    "pndm": "pndm",
    "euler": "euler",
    "k_euler": "euler",
    "dpmsolver": "dpmsolver",
    "dpmsolver++": "dpmsolver++",
}
"""Samplers that are here too."""
NETWORKS = ("networks.lora", "networks.lora_sd3", "networks.lora_flux")


def unless(why: str, *same_as: Any, kind: Any = "value") -> Meaning:
    """Refused but for what is empty, off, or in `same_as`: what is done anyway."""
    return refused(why, "", "[]", *same_as, kind=kind)


def number(name: str, given: Any) -> float:
    """A number; `name` is for the message."""
    try:
        found = float(given)
        if not math.isfinite(found):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise Refused(f"{name}: expected a number; received {given!r}") from None
    return found


def listed(given: Any) -> list[str]:
    """The parts of a value that is several: a file's list, or words of a flag, which come joined by commas."""
    return [str(part) for part in given] if isinstance(given, list) else str(given).split(",")


def arguments(given: Any) -> dict[str, str]:
    """`key=value` words; a value may hold commas, as betas do."""
    text = ",".join(map(str, given)) if isinstance(given, list) else str(given)
    if not text.strip():
        return {}
    found = re.findall(r"\s*(\w+)\s*=\s*(.*?)\s*(?:,(?=\s*\w+\s*=)|$)", text)
    if not found:
        raise Refused(f"expected key=value; received {text!r}")
    return dict(found)


def read_course(given: Any) -> Settings:
    if str(given) not in COURSES:
        raise Refused(f"{given}: not among the courses of the learning rate here; {', '.join(COURSES)} are")
    return {"lr_scheduler": given}


def read_warmup(given: Any) -> Settings:
    """Updates, or, below 1 or with %, a share of them, for which the length must be known (`kohya_parts`)."""
    text = str(given).strip()
    share = number("lr_warmup_steps", text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if text.endswith("%") or 0 < share < 1:
        return {"lr_warmup_share": share}
    return {"lr_warmup_steps": int(share) if share == int(share) else given}


def read_resolution(given: Any) -> Settings:
    """One side, or WIDTH,HEIGHT."""
    sides = [part.strip() for part in listed(given)]
    if len(sides) not in (1, 2) or not all(re.fullmatch(r"\d+", side) for side in sides):
        raise Refused(f"expected a side, or width,height; received {given!r}")
    if len(set(sides)) == 1:
        return {"resolution": int(sides[0])}
    return {"width": int(sides[0]), "height": int(sides[1])}


def read_crop(given: Any) -> Settings:
    """A crop at random is a new one for every sample there."""
    return {"center_crop": False, "instance_variants": 0} if truth(given) else {}


def read_text_rates(given: Any) -> Settings:
    """One rate for each text encoder there, one for all here."""
    return {"text_encoder_rates": listed(given)}


def read_alpha(given: Any) -> Settings:
    """0 stands for the rank."""
    return {"lora_alpha": given if number("network_alpha", given) else None}


def read_gamma(given: Any) -> Settings:
    return {"snr_gamma": given} if number("min_snr_gamma", given) else {}


def read_visibility(given: Any) -> Settings:
    return {"hub_private_repo": str(given) != "public"}


def read_interpolation(given: Any) -> Settings:
    """`area` averages what is made smaller, as Pillow's box does."""
    known = {"linear": "bilinear", "cubic": "bicubic", "lanczos4": "lanczos", "area": "box"}
    spelt = known.get(str(given), str(given))
    if spelt not in ("nearest", "bilinear", "bicubic", "box", "lanczos"):
        raise Refused(f"expected lanczos, nearest, bilinear, bicubic, area or box; received {given!r}")
    return {"image_interpolation_mode": spelt}


def read_saved_as(given: Any) -> Settings:
    if str(given) not in ("", "safetensors", "diffusers", "diffusers_safetensors"):
        raise Refused(f"{given}: pickles are not written; give safetensors")
    return {}


def read_clip_skip(given: Any) -> Settings:
    if str(given) != "1":
        raise Refused("the words come from the layer that the model's pipeline takes them from; leave it out")
    return {}


def read_text_encoder_end(given: Any) -> Settings:
    """Below 0 the text encoder never trains."""
    if number("stop_text_encoder_training", given) >= 0:
        raise Refused("the text encoder trains for the whole run, or with -1 not at all")
    return {"train_text_encoder": False}


def absolute(given: Any) -> str:
    """A path from the working folder: there a log's folder does not lie in the run's."""
    return str(Path(str(given)).expanduser().absolute())


def switch_of(settings: Mapping[str, Any]) -> Any:
    """Reads a switch that makes settings where it is on."""
    return lambda given: settings if truth(given) else {}
