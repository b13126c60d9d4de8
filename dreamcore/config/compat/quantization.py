"""How other trainers are told to keep frozen weights in fewer bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...io.text import read_text
from .meaning import Meaning, Refused, Settings, refused, several, switch, truth

EXAMPLE = '{"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}'
HERE = "quantize_base int8, fp8 and nf4 are there"


def read_bitsandbytes(given: Any) -> Settings:
    """Settings of the file that makes bitsandbytes' configuration in diffusers' scripts."""
    file = Path(str(given)).expanduser()
    try:
        values = json.loads(read_text(file))
        four, eight = (truth(values.get(name, False)) for name in ("load_in_4bit", "load_in_8bit"))
        kind = values.get("bnb_4bit_quant_type", "fp4")
    except OSError as error:
        raise Refused(f"{file}: {error.strerror or error}; expected a file such as {EXAMPLE}") from None
    except (ValueError, AttributeError) as error:
        raise Refused(f"{file}: expected JSON such as {EXAMPLE} ({error})") from None
    if four and kind != "nf4":
        raise Refused(f"{file}: bnb_4bit_quant_type {kind}: expected nf4; {HERE}")
    if not four and not eight:
        raise Refused(f"{file}: expected load_in_4bit or load_in_8bit to be true")
    return {"quantize_base": "nf4" if four else "int8"}


def _fp8(given: Any) -> Settings:
    return {"quantize_base": "fp8"} if switch(given) else {}


FP8 = several("`quantize_base=fp8`", _fp8, "switch")
DIFFUSERS: dict[str, Meaning] = {
    "bnb_quantization_config_path": several(
        "`quantize_base`, nf4 or int8 as the file says; frozen weights alone have fewer bits here, in int8 too",
        read_bitsandbytes,
    ),
    "do_fp8_training": refused(
        "nothing is computed in fp8 here; quantize_base fp8 keeps frozen weights in it", kind="switch"
    ),
}
"""Flags of diffusers' scripts."""
KOHYA: dict[str, Meaning] = {"fp8_base": FP8, "fp8_base_unet": FP8}
"""Flags of sd-scripts.  The first means text encoders too, there; here those that do not train have left memory by
then, and for their own turn there is quantize_text_encoders."""
