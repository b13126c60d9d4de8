"""Model families: what a pipeline consists of and how it is trained, described once for every backend."""

from __future__ import annotations

from .base import Family
from .stable_diffusion import STABLE_DIFFUSION

FAMILIES: dict[str, Family] = {name: family for family in (STABLE_DIFFUSION,) for name in family.pipelines}
"""By the pipeline class that model_index.json names."""

__all__ = ["FAMILIES", "Family"]
