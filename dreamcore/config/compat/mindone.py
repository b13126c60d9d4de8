"""MindONE's examples/diffusers: ports of diffusers' scripts to MindSpore."""

from __future__ import annotations

from .diffusers import DEFAULTS, DIFFUSERS, LORA, of_model, with_lora
from .meaning import System, ignored

MINDONE = System(
    name="mindone",
    about="MindONE's examples/diffusers/dreambooth",
    backend="mindspore",
    scripts={name: script for name, script in DIFFUSERS.scripts.items() if "advanced" not in name}
    | {"train_dreambooth_lora_sdxl_advanced.py": LORA},
    train={
        "distributed": ignored("the launcher's environment says it", "switch"),
        "enable_mindspore_data_sink": ignored("latents are encoded once; a batch is some kilobytes", "switch"),
    },
    defaults={**DEFAULTS, "layout": "mindone"},
    of_model=of_model,
    combine=with_lora,
)
