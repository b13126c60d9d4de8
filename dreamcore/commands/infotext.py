"""How an image was made, as text: the `parameters` that A1111's web UI writes into a PNG and that other tools read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..config.common import Scheduler
from ..version import __version__

SAMPLERS: Mapping[Scheduler, str] = {
    "ddim": "DDIM",
    "pndm": "PLMS",
    "dpmsolver": "DPM-Solver",
    "dpmsolver++": "DPM++ 2M",
    "euler": "Euler",
    "unipc": "UniPC",
    "ddpm": "DDPM",
}
"""Sampler -> what A1111's web UI calls it."""


def infotext(prompt: str, negative_prompt: str, details: Mapping[str, Any]) -> str:
    """The prompt, a line of what should not show, and a line of details, NAME: VALUE with commas between."""
    lines = [prompt, *([f"Negative prompt: {negative_prompt}"] if negative_prompt else [])]
    said = {**details, "Version": f"dreambooth {__version__}"}
    return "\n".join([*lines, ", ".join(f"{name}: {_quoted(value)}" for name, value in said.items())])


def _quoted(value: Any) -> str:
    """A value; in JSON's quotes where it holds what parts values and lines."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
