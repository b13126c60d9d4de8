"""Model families: what a pipeline consists of and how it is trained, described once for every backend."""

from __future__ import annotations

from .autoencoders import AUTOENCODERS, AutoencoderClass
from .base import Family, FamilyInputs, TextEncoder
from .chroma import CHROMA
from .deepfloyd_if import STAGE_1, STAGE_2
from .encoders import ENCODERS
from .flux import FLUX, KONTEXT
from .flux_2 import DEV, KLEIN
from .hidream import HIDREAM
from .lumina_2 import LUMINA_2
from .qwen_image import QWEN_IMAGE
from .sana import SANA
from .stable_diffusion import STABLE_DIFFUSION
from .stable_diffusion_3 import STABLE_DIFFUSION_3
from .stable_diffusion_xl import STABLE_DIFFUSION_XL
from .z_image import Z_IMAGE

FAMILIES: dict[str, Family] = {
    name: family
    for family in (
        STABLE_DIFFUSION,
        STABLE_DIFFUSION_XL,
        STABLE_DIFFUSION_3,
        FLUX,
        KONTEXT,
        KLEIN,
        DEV,
        SANA,
        CHROMA,
        HIDREAM,
        LUMINA_2,
        QWEN_IMAGE,
        Z_IMAGE,
        STAGE_1,
        STAGE_2,
    )
    for name in family.pipelines
}
"""By the pipeline class that model_index.json names."""

__all__ = [
    "AUTOENCODERS",
    "ENCODERS",
    "FAMILIES",
    "STABLE_DIFFUSION",
    "AutoencoderClass",
    "Family",
    "FamilyInputs",
    "TextEncoder",
]
