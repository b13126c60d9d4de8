"""Model families: what a pipeline consists of and how it is trained, described once for every backend."""

from __future__ import annotations

from .base import Family, FamilyInputs, TextEncoder
from .deepfloyd_if import STAGE_1, STAGE_2
from .encoders import ENCODERS
from .flux import FLUX
from .stable_diffusion import STABLE_DIFFUSION
from .stable_diffusion_3 import STABLE_DIFFUSION_3
from .stable_diffusion_xl import STABLE_DIFFUSION_XL

FAMILIES: dict[str, Family] = {
    name: family
    for family in (STABLE_DIFFUSION, STABLE_DIFFUSION_XL, STABLE_DIFFUSION_3, FLUX, STAGE_1, STAGE_2)
    for name in family.pipelines
}
"""By the pipeline class that model_index.json names."""

__all__ = ["ENCODERS", "FAMILIES", "STABLE_DIFFUSION", "Family", "FamilyInputs", "TextEncoder"]
