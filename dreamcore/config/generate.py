"""Settings of `dreambooth generate`."""

from __future__ import annotations

from ..errors import ConfigError
from .base import setting
from .common import ModelSettings, Scheduler


class GenerateConfig(ModelSettings):
    """Pictures from a model folder, a finished run among them, with or without a LoRA file."""

    prompt: str | None = setting(None)
    """Words for the picture."""
    prompt_file: str | None = setting(None)
    """Text file with one prompt a line, in place of `prompt`."""
    negative_prompt: str = setting("")
    """What the pictures should not show."""
    num_images: int = setting(1, ge=1)
    """Pictures of each prompt; the k-th is made from seed + k."""
    seed: int = setting(0, ge=0, lt=2**63)
    """Seed of a prompt's first picture: the same seed gives the same picture, whatever the batch size."""
    num_inference_steps: int = setting(30, ge=1)
    """Denoising steps."""
    guidance_scale: float | None = setting(None, ge=0)
    """Classifier-free guidance (arXiv 2207.12598); 1 turns it off.  The family's by default: 7.5 for SD, SDXL."""
    scheduler: Scheduler | None = setting(None)
    """Sampler; the default is ddim where the model's noise levels admit it, else euler."""
    height: int | None = setting(None, gt=0)
    """Height in pixels; the default is the model's own."""
    width: int | None = setting(None, gt=0)
    """Width in pixels; the default is the model's own."""
    batch_size: int = setting(4, ge=1)
    """Pictures made at a time."""
    lora: str | None = setting(None)
    """LoRA file, or the run folder that holds one."""
    lora_scale: float = setting(1.0)
    """Strength of the LoRA."""
    output_dir: str = setting("samples")
    """Folder for the pictures; those that are there stay, and numbers go on after them."""
    contact_sheet: bool = setting(True)
    """Write all pictures into one, sheet.png, as well."""

    def check(self) -> None:
        if (self.prompt is None) == (self.prompt_file is None):
            raise ConfigError("prompt: give either prompt or prompt_file")
