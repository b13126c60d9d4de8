"""Small models of every family but Stable Diffusion 1, by the names that tests use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .tiny_families import WRITERS as OLDER
from .tiny_flux_2 import WRITERS as FLUX_2
from .tiny_hidream import WRITERS as OTHERS
from .tiny_krea_ernie import WRITERS as KREA_ERNIE
from .tiny_language_models import WRITERS as LANGUAGE_MODELS

EVERY: dict[str, Callable[..., Path]] = {**OLDER, **FLUX_2, **LANGUAGE_MODELS, **OTHERS, **KREA_ERNIE}
