"""The description of a model family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What a backend must know of a family; names are those of the published folders and layers."""

    name: str
    pipelines: tuple[str, ...]
    """Class names in model_index.json."""
    denoiser: str
    """Sub-folder of the network that is trained."""
    text_encoders: tuple[tuple[str, str], ...]
    """(tokenizer, text encoder) sub-folders."""
    lora_layers: tuple[str, ...]
    """Endings of the denoiser's layer names that get LoRA factors unless the user says otherwise."""
    text_lora_layers: tuple[str, ...]
    """The same for the text encoders."""
    vae: str = "vae"
