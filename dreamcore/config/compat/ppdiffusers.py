"""PPDiffusers' examples/dreambooth: ports of diffusers' scripts to Paddle."""

from __future__ import annotations

from .diffusers import LORA, of_model, with_lora
from .meaning import Script, Settings, System, refused, same


def _of_model(family: str, lora: bool) -> Settings:
    """As diffusers', but for Stable Diffusion 3, whose scripts there are older, and for the tracker of the oldest."""
    theirs = dict(of_model(family, lora))
    if family.startswith("Stable Diffusion 3"):
        theirs |= {"weighting_scheme": "sigma_sqrt"}
        theirs.pop("max_sequence_length")
    if family.startswith("Stable Diffusion 1"):
        theirs |= {"report_to": "visualdl"}
    return theirs


PPDIFFUSERS = System(
    name="ppdiffusers",
    about="PPDiffusers' examples/dreambooth",
    backend="paddle",
    scripts={
        **{f"train_dreambooth{of}.py": Script() for of in ("", "_sd3")},
        **{f"train_dreambooth_lora{of}.py": LORA for of in ("", "_sdxl", "_sd3")},
    },
    train={
        "not_validation_final": same("skip_final_inference", kind="switch"),
        "crops_coords_top_left_h": refused("SDXL is told where each photograph was cropped", "0"),
        "crops_coords_top_left_w": refused("SDXL is told where each photograph was cropped", "0"),
    },
    defaults={
        "num_train_epochs": 1,
        "lr_warmup_steps": 500,
        "export_format": "ppdiffusers",
    },
    of_model=_of_model,
    combine=with_lora,
)
