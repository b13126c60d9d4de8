"""Settings of `dreambooth convert`: files of weights in another form, LoRA merged, resized and extracted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from .base import Settings, setting
from .common import SDVersion
from .output import SavePrecision

Form = Literal["diffusers", "original", "paddle", "kohya", "peft", "mindone"]


class WritingSettings(Settings):
    """What is written, and of what numbers."""

    GROUP = "writing"
    COMMAND = "convert"

    target: str = setting(example="my-dog-kohya.safetensors")
    """What to write: a new file, or a new or empty folder; nothing is ever overwritten."""
    save_precision: SavePrecision | None = setting(None, example="fp16")
    """Type of the numbers written; the default keeps each as it is, and writes what is computed for a LoRA in fp32."""


class ReadingSettings(Settings):
    """How models and LoRA files are read."""

    GROUP = "reading"

    variant: str | None = setting(None, example="fp16")
    """Variant of a model folder's weight files, such as fp16."""
    original_config: str | None = setting(None, example="v1-inference.yaml")
    """What describes a model in one file where its shapes do not: a YAML file in the original layout, or a folder in
    diffusers' layout."""
    sd_version: SDVersion | None = setting(None)
    """Which Stable Diffusion a single file holds, where nothing else says it; v is v-prediction."""
    allow_pickle: bool = setting(False)
    """Read pickled weights (.ckpt, .bin, .pt): tensors alone are taken, and nothing in them is run."""


class ConvertConfig(WritingSettings, ReadingSettings):
    """A model or a LoRA in another form."""

    WORDS: ClassVar[tuple[str, ...]] = ("source", "target")
    GROUP = "form"
    ESSENTIAL = ("source", "target", "to", "pretrained_model_name_or_path", "save_precision")

    source: str = setting(example="my-dog")
    """Model folder (diffusers' or Paddle's), model in one file, or LoRA file in anyone's names; it tells which."""
    to: Form | None = setting(None, example="kohya")
    """Form of the target.  Of a model: diffusers or paddle (folders), original (one .safetensors file) or mindone (one
    .ckpt file); the default follows from the target's ending.  Of a LoRA: diffusers, peft, kohya (which ComfyUI and
    A1111 read), paddle or mindone."""
    pretrained_model_name_or_path: str | None = setting(None, example="stable-diffusion-v1-5/stable-diffusion-v1-5")
    """Model that a LoRA is for, where its file does not tell."""


class MergeConfig(WritingSettings, ReadingSettings):
    """Several LoRAs in one, or LoRA in a model's weights."""

    WORDS: ClassVar[tuple[str, ...]] = ("target",)
    GROUP = "form"
    ESSENTIAL = ("target", "lora", "lora_scale", "pretrained_model_name_or_path", "rank")

    lora: list[str] = setting(example=["my-dog", "my-cat"])
    """LoRA files, or run folders that hold one."""
    lora_scale: list[float] = setting([1.0], example=[0.8, 0.6])
    """Strength of the LoRA: one number for all files, or one for each."""
    pretrained_model_name_or_path: str | None = setting(None, example="stable-diffusion-v1-5/stable-diffusion-v1-5")
    """Model to merge into: a folder, a single file, or an id on the Hub.  Without one, the target is a LoRA of all."""
    rank: int | None = setting(None, ge=1, example=8)
    """Rank of the merged LoRA, with the error that it costs; the default is exact: the sum of the ranks."""
    to: Form | None = setting(None, example="kohya")
    """Form of the target, as for `convert`; the default of a LoRA is the first one's own naming."""

    def contradictions(self) -> Iterator[str]:
        if len(self.lora_scale) not in (1, len(self.lora)):
            yield (
                f"lora_scale: {len(self.lora_scale)} numbers for {len(self.lora)} LoRA files; give one for all, or one "
                "for each"
            )
        if self.pretrained_model_name_or_path is not None and self.rank is not None:
            yield "rank: is of a merged LoRA; remove it, or pretrained_model_name_or_path"

    @property
    def loras(self) -> list[tuple[str, float]]:
        """Each LoRA file, or run folder, with its strength."""
        scales = self.lora_scale if len(self.lora_scale) == len(self.lora) else self.lora_scale * len(self.lora)
        return list(zip(self.lora, scales, strict=True))


class ResizeConfig(WritingSettings):
    """A LoRA of another rank, the nearest there is."""

    WORDS: ClassVar[tuple[str, ...]] = ("source", "target")
    GROUP = "form"
    ESSENTIAL = ("source", "target", "rank", "to")

    source: str = setting(example="my-dog")
    """LoRA file, or the run folder that holds one."""
    rank: int = setting(ge=1, example=8)
    """Rank to bring it to."""
    to: Form | None = setting(None, example="kohya")
    """Form of the target, as for `convert`; the default is the source's own naming."""
    pretrained_model_name_or_path: str | None = setting(None, example="stable-diffusion-v1-5/stable-diffusion-v1-5")
    """Model that the LoRA is for, where its file does not tell."""
    allow_pickle: bool = setting(False)
    """Read pickled weights (.ckpt, .bin, .pt): tensors alone are taken, and nothing in them is run."""


class ExtractConfig(WritingSettings, ReadingSettings):
    """A LoRA that is nearest to the difference of two models."""

    WORDS: ClassVar[tuple[str, ...]] = ("target",)
    GROUP = "form"
    ESSENTIAL = ("target", "pretrained_model_name_or_path", "base", "rank", "to")

    pretrained_model_name_or_path: str = setting(example="stable-diffusion-v1-5/stable-diffusion-v1-5")
    """The tuned model: a folder, a single file, or an id on the Hub."""
    base: str = setting(example="stable-diffusion-v1-5/stable-diffusion-v1-5")
    """The model that it was tuned from."""
    rank: int = setting(4, ge=1, example=8)
    """Rank of the LoRA."""
    lora_layers: list[str] | None = setting(None, example=["to_q", "to_k", "to_v", "to_out.0"])
    """Endings of the denoiser's layer names that get factors, convolutions too; the default is training's."""
    to: Form | None = setting(None, example="kohya")
    """Form of the target, as for `convert`; the default is kohya in a .safetensors file, diffusers in a folder."""
