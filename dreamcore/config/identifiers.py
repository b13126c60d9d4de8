"""Settings of `dreambooth identifiers`."""

from __future__ import annotations

from .base import setting
from .common import ModelSettings


class IdentifiersConfig(ModelSettings):
    """Rare tokens to name a subject by."""

    GROUP = "words"
    ESSENTIAL = ("pretrained_model_name_or_path", "class_word", "num_identifiers", "grid")

    class_word: str | None = setting(None, example="dog")
    """What the subject is one of: the identifiers' effect is measured beside this word."""
    num_identifiers: int = setting(20, ge=1)
    """Identifiers to suggest."""
    num_candidates: int = setting(200, ge=1)
    """Rare tokens to measure, the rarest of the vocabulary."""
    grid: str | None = setting(None, example="words.png")
    """PNG file for one image of each identifier beside the class word, from one seed; where there is one already, the
    new one's name gets a number."""
    num_inference_steps: int = setting(30, ge=1)
    """Denoising steps of an image."""
    seed: int = setting(0, ge=0, lt=2**63)
    """Seed of the images."""
    batch_size: int = setting(4, ge=1)
    """Images made at a time."""
