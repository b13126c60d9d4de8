"""Model families: what a pipeline consists of and how it is trained, described once for every backend."""

from __future__ import annotations

from .autoencoders import AUTOENCODERS, AutoencoderClass
from .base import Family, FamilyInputs, TextEncoder
from .chroma import CHROMA
from .deepfloyd_if import STAGE_1, STAGE_2
from .encoders import ENCODERS
from .ernie_image import ERNIE_IMAGE
from .flux import FLUX, KONTEXT
from .flux_2 import DEV, KLEIN
from .hidream import HIDREAM
from .krea_2 import KREA_2
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
        KREA_2,
        ERNIE_IMAGE,
        STAGE_1,
        STAGE_2,
    )
    for name in family.pipelines
}
"""By the pipeline class that model_index.json names."""

REFUSED = {
    "Ideogram4Pipeline": "it guides by a second transformer (unconditional_transformer), its pipeline takes no words "
    "that were embedded before (prompt_embeds), and noises images by a schedule of its own",
}
"""Pipelines that other programs train -> what of them nothing here can do."""

__all__ = [
    "AUTOENCODERS",
    "ENCODERS",
    "FAMILIES",
    "REFUSED",
    "STABLE_DIFFUSION",
    "AutoencoderClass",
    "Family",
    "FamilyInputs",
    "TextEncoder",
]
