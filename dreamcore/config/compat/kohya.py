"""kohya-ss/sd-scripts: `train_network.py`, `train_db.py` and their kin.

What cannot be the same:

- The seed is drawn there where none is given; here it is 0.
- LoRA trains the attention of CLIP's text encoders here, there their other linear layers too; and of Stable Diffusion 3
  and Flux, whose queries, keys and values are one layer there with one pair of factors, each has its own.
- Where resize_interpolation is not given, photographs are made smaller by averages of areas there, with Lanczos here.
- A run is the folder OUTPUT_DIR/OUTPUT_NAME, or OUTPUT_DIR without a name, and there lies its LoRA file of that name.
- LoRA that begins with a file (network_weights) has the product of its factors and alpha, whatever rank and alpha the
  run has; there the factors are taken as they are.

Its photographs: `kohya_data`; its sample images: `kohya_samples`; what else several flags make together: `kohya_parts`.
"""

from __future__ import annotations

from typing import Any

from .diffusers import DIFFUSERS, with_lora
from .kohya_data import SIZES, photographs
from .kohya_names import NAMES
from .kohya_networks import LAYERS
from .kohya_parts import DEFAULTS, PARTS
from .kohya_samples import samples
from .meaning import Refused, Script, Settings, System


def _sections(values: Settings) -> dict[str, Any]:
    """The settings of a file's sections, whose names mean nothing, beside those outside of them, which win."""
    table = {**DIFFUSERS.train, **NAMES}
    found: dict[str, Any] = {}
    for section in (value for value in values.values() if isinstance(value, dict)):
        for raw, value in section.items():
            name = raw.replace("-", "_")
            try:
                found |= table[name].read(value) if name in table else {name: value}
            except Refused as error:
                raise Refused(f"{raw}: {error}") from None
    outside = {name: value for name, value in values.items() if not isinstance(value, dict)}
    if any(name in outside for name in SIZES):
        found = {name: value for name, value in found.items() if name not in SIZES}
    return found | outside


def combine(values: Settings) -> Settings:
    """Settings of names that are parts of one; all that is refused is said at once.

    The order matters: data sets say the size, which buckets and sample images need, and these what Flux is.
    """
    made, problems = _sections(values), list[str]()
    for part in (photographs, samples, *PARTS):
        try:
            part(made)
        except Refused as error:
            problems.append(str(error))
    if problems:
        raise Refused("\n".join(problems))
    return with_lora(made)


def of_model(family: str, lora: bool) -> Settings:
    """LoRA trains the text encoders that CLIP has; of whole models only train_db.py's do."""
    if family.startswith("Stable Diffusion 3"):
        return {"precondition_outputs": True, **({"train_text_encoder": True} if lora else {})}
    if family.startswith("Flux"):
        return {"train_text_encoder": True} if lora else {}
    encoders = lora or not family.endswith("XL")
    return {
        "validation_scheduler": "ddim",
        **({"train_text_encoder": True} if encoders else {}),
        **({"lora_layers": list(LAYERS)} if lora else {}),
    }


def _script(name: str = "", lora: bool = False) -> Script:
    return Script(settings={**({"use_lora": True} if lora else {}), **({"kohya_script": name} if name else {})})


KOHYA = System(
    name="kohya",
    about="kohya-ss/sd-scripts",
    backend=None,
    scripts={
        "train_network.py": _script(lora=True),
        "sdxl_train_network.py": _script(lora=True),
        "sd3_train_network.py": _script("sd3", lora=True),
        "flux_train_network.py": _script("flux", lora=True),
        "train_db.py": _script(),
        "fine_tune.py": _script("fine_tune"),
        "sdxl_train.py": _script(),
        "sd3_train.py": _script("sd3"),
        "flux_train.py": _script("flux"),
    },
    train=NAMES,
    defaults=DEFAULTS,
    of_model=of_model,
    configuration=("config_file",),
    combine=combine,
)
