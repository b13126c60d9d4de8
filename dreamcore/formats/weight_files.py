"""Which of a component's files hold its weights, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WEIGHTS = re.compile(
    r"^(?P<base>\w+?)(?:\.(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?(?:\.(?P<old_variant>\w+))?\.(?P<kind>safetensors|bin|pdparams)$"
)
_WEIGHT_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model", "model_state", "diffusion_paddle_model")


def choose_weights(names: Iterable[str], variant: str | None) -> list[str]:
    """Of one component's file names, those of its weights: safetensors before .bin before Paddle's, shards together."""
    found: dict[str, list[str]] = {"safetensors": [], "bin": [], "pdparams": []}
    for name in sorted(names):
        match = _WEIGHTS.match(name)
        if match and match["base"] in _WEIGHT_NAMES and variant_in(name) == variant:
            found[match["kind"]].append(name)
    return found["safetensors"] or found["bin"] or found["pdparams"]


def variant_in(name: str) -> str | None:
    """The variant that a weight file's name speaks of, such as fp16."""
    match = _WEIGHTS.match(name)
    return (match["variant"] or match["old_variant"]) if match and match["base"] in _WEIGHT_NAMES else None
