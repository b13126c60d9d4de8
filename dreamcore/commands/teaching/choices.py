"""The one table of what `teach` chooses, with a reason for each row.

preset      by the model's family (`PRESETS`): LoRA, of which a small file comes out that other programs load; all of
            the embedded miniature, whose LoRA would not be worth a file
memory      the first of `memory.ROWS` whose plan fits this device: faster than the preset, as it is, then sparing
updates     the preset's for up to five photographs, in proportion for more, up to three times (`updates_for`)
identifier  the one that all captions have before the class; else the rarest word of the model's vocabulary
captions    used where they lie beside the photographs; those that do not name the subject get its words in front
validation  the preset's: images before the first update and after the last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...config.files import read_config_file
from ...config.loading import without_rivals
from ...config.presets import read_preset
from ...formats.kohya_lora import PIPELINES
from ...models.folder import ModelFolder
from ...models.locate import TINYWORLD, embedded_model

PRESETS = {
    "StableDiffusionPipeline": "sd15-lora",
    "StableDiffusionXLPipeline": "sdxl-lora",
    "StableDiffusion3Pipeline": "sd3-lora",
    "FluxPipeline": "flux-lora",
    "FluxKontextPipeline": "kontext-lora",
    "Flux2KleinPipeline": "flux2-klein-lora",
    "Flux2Pipeline": "flux2-dev-lora",
    "Lumina2Pipeline": "lumina2-lora",
    "QwenImagePipeline": "qwen-image-lora",
    "ZImagePipeline": "z-image-lora",
    "Krea2Pipeline": "krea2-lora",
    "ErnieImagePipeline": "ernie-image-lora",
    "SanaPipeline": "sana-lora",
    "ChromaPipeline": "chroma-lora",
    "HiDreamImagePipeline": "hidream-lora",
    "IFPipeline": "if1-lora",
    "IFSuperResolutionPipeline": "if2-lora",
}
"""Class name in model_index.json -> preset."""
SIDES = {
    **dict.fromkeys(("sdxl-lora", "sd3-lora", "lumina2-lora", "z-image-lora", "sana-lora", "hidream-lora"), 1024),
    **dict.fromkeys(("krea2-lora", "ernie-image-lora"), 1024),
    "if1-lora": 64,
    "if2-lora": 256,
    "quickstart": 64,
}
USUAL_SIDE = 512
"""Pixels, of Stable Diffusion 1, Flux and the others."""
DEFAULT_PRESET, EMBEDDED_PRESET = "sd15-lora", "quickstart"
USUAL_PHOTOGRAPHS = 5
"""Photographs for which presets' numbers of updates are meant: diffusers' README of DreamBooth trains LoRA for 500
updates on its five of a dog; the paper (arXiv 2208.12242) takes three to five, with one length for all."""
MOST_TIMES = 3
"""A run is no longer than so many times the preset's: 1,500 updates of SD 1.5, beyond the 800 to 1,200 that
https://huggingface.co/blog/dreambooth found best for faces, which are the hardest; more overfits."""


@dataclass
class Choices:
    """Settings that are chosen, each with why.

    Args:
        given: the user's, which win.
        preset: the preset's name.
        values: what is chosen; begins with the preset's settings.
        why: a reason for each.
    """

    given: Mapping[str, Any]
    preset: str
    values: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    why_preset: str = ""
    """Why this preset."""

    @classmethod
    def of_preset(cls, preset: str, given: Mapping[str, Any], why: str) -> Choices:
        """The preset's settings, but for those that are given.

        Args:
            why: this preset.
        """
        values = without_rivals(read_config_file(preset), given)
        return cls(given, preset, values, dict.fromkeys(values, f"preset {preset}"), why)

    def choose(self, name: str, value: Any, why: str) -> None:
        """Choose a setting's value, unless the user gave one."""
        if name not in self.given:
            self.values[name], self.why[name] = value, why

    def now(self, name: str) -> Any:
        """A setting's value: given, or chosen."""
        return self.given.get(name, self.values.get(name))

    def reasons(self) -> dict[str, str]:
        """Of every setting."""
        return self.why | dict.fromkeys(self.given, "as you gave it")


def preset_of(model: ModelFolder) -> str:
    """The preset for a model."""
    if model.path == embedded_model():
        return EMBEDDED_PRESET
    return PRESETS.get(str(model.index["_class_name"]), DEFAULT_PRESET)


def preset_of_id(name: str) -> str:
    """The preset for a model that is not here yet, by its name on the Hub; `preset_of` has the last word."""
    if name == TINYWORLD:
        return EMBEDDED_PRESET
    known = {read_config_file(preset)["pretrained_model_name_or_path"].lower(): preset for preset in PRESETS.values()}
    likely = {"kontext": "kontext-lora", "flux.2-klein": "flux2-klein-lora", "flux.2": "flux2-dev-lora"}
    likely |= {"lumina-image-2": "lumina2-lora", "qwen-image": "qwen-image-lora", "z-image": "z-image-lora"}
    likely |= {"krea-2": "krea2-lora", "ernie-image": "ernie-image-lora"}
    likely |= {"sana": "sana-lora", "chroma": "chroma-lora", "hidream": "hidream-lora"}
    likely |= {"flux": "flux-lora", "stable-diffusion-3": "sd3-lora", "xl": "sdxl-lora", "/if-i-": "if1-lora"}
    guessed = (preset for part, preset in likely.items() if part in name.lower())
    return known.get(name.lower()) or next(guessed, DEFAULT_PRESET)


def default_model() -> str:
    """The model that learns where none is named: the preset's for SD 1.5."""
    return str(read_config_file(DEFAULT_PRESET)["pretrained_model_name_or_path"])


def why_preset(of: str, preset: str) -> str:
    """Why a model or a family gets its preset."""
    if preset == EMBEDDED_PRESET:
        return "which is made for the embedded miniature"
    others = any(PRESETS.get(pipeline) == preset for pipeline in PIPELINES)
    loads = "ComfyUI, A1111 and diffusers load" if others else "diffusers loads"
    return f"which is for {of}: a small file comes out that {loads}"


def preset_memory(name: str) -> str:
    """What a preset's header says of the memory that it needs."""
    preset = read_preset(name)
    card = f"a card with {preset.card_gb} GB" if preset.card_gb else "no card is needed"
    return f"{preset.memory_gib:g} GiB, {preset.memory_how} for preset {name}: {card}"


def preset_side(preset: str) -> int:
    """Pixels of the images' sides that a preset's model is made for."""
    return SIDES.get(preset, USUAL_SIDE)


def updates_for(photographs: int, usual: int) -> int:
    """Updates for so many photographs, where a preset has `usual` ones.

    >>> [updates_for(count, 500) for count in (3, 5, 8, 40)]
    [500, 500, 800, 1500]
    """
    return round(usual * min(max(photographs / USUAL_PHOTOGRAPHS, 1), MOST_TIMES))


def why_updates(photographs: int, usual: int, preset: str) -> str:
    """Why so many."""
    said = f"preset {preset} has {usual}, usual for {USUAL_PHOTOGRAPHS} photographs"
    if photographs <= USUAL_PHOTOGRAPHS:
        return said
    if photographs <= USUAL_PHOTOGRAPHS * MOST_TIMES:
        return f"{said}; {photographs} are each seen as often"
    return f"{said}; for {photographs}, {MOST_TIMES} times as many, as more would overfit"
