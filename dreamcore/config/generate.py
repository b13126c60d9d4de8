"""Settings of `dreambooth generate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..io.names import CONFIG, EMBEDDINGS_FILE, INDEX, LORA_FILE, embeddings_name, lora_name
from .base import listed, setting
from .common import ModelSettings, Scheduler
from .files import read_config_file


class GenerateConfig(ModelSettings):
    """Images from a model folder, a finished run among them, with or without a LoRA file."""

    COMMAND = "generate"
    GROUP = "images"
    ESSENTIAL = (
        *("prompt", "pretrained_model_name_or_path", "lora", "lora_scale", "negative_prompt", "num_images", "seed"),
        *("height", "width", "num_inference_steps", "guidance_scale", "output_dir"),
    )

    prompt: str | None = setting(None, may_be_empty=True, example="a photo of sks dog in the snow")
    """Words for the image."""
    prompt_file: str | None = setting(None, example="prompts.txt")
    """Text file with one prompt a line, in place of `prompt`; kohya's options behind a prompt (`--n WORDS --w 768
    --h 512 --d SEED --s STEPS --l GUIDANCE`) hold for its images."""
    negative_prompt: str = setting("", may_be_empty=True, example="blurry, low quality")
    """What the images should not show."""
    num_images: int = setting(1, ge=1, example=4)
    """Images of each prompt; the k-th is made from seed + k."""
    seed: int = setting(0, ge=0, lt=2**63, example=7)
    """Seed of a prompt's first image: the same seed gives the same image, whatever the batch size."""
    num_inference_steps: int = setting(30, ge=1, example=50)
    """Denoising steps."""
    guidance_scale: float | None = setting(None, ge=0, example=7.5)
    """Classifier-free guidance (arXiv 2207.12598); 1 turns it off.  The family's by default: 7.5 for SD, SDXL."""
    scheduler: Scheduler | None = setting(None)
    """Sampler; the default is ddim where the model's noise levels admit it, else euler."""
    height: int | None = setting(None, gt=0, example=768)
    """Height in pixels; the default is the model's own."""
    width: int | None = setting(None, gt=0, example=512)
    """Width in pixels; the default is the model's own."""
    batch_size: int = setting(4, ge=1)
    """Images made at a time."""
    image: str | None = setting(None, example="small.png")
    """Image file of which a model that upscales (DeepFloyd IF stage 2) makes larger ones, stage 1's; or the reference
    that Flux Kontext and Flux.2 are told, of which the middle is taken in the size of the images."""
    noise_level: int = setting(250, ge=0, lt=1000)
    """Timestep whose noise is added to `image` first: more of it leaves more to the model."""
    lora: list[str] | None = setting(None, example=["my-dog"])
    """LoRA files, or run folders that hold one; the first run's own configuration then says model and size."""
    lora_scale: list[float] = setting([1.0], example=[0.8])
    """Strength of the LoRA: one number for all files, or one for each."""
    embeddings: str | None = setting(None, example="my-dog")
    """File of new words' embeddings (textual inversion), or the folder of a run that trained some; the default is what
    lies in the LoRA's folder.  Prompts may then hold these words."""
    output_dir: str = setting("samples", example="pictures")
    """Folder for the images; those that are there stay, and numbers go on after them."""
    contact_sheet: bool = setting(True)
    """Write all images into one, sheet.png, as well."""

    def contradictions(self) -> Iterator[str]:
        if (self.prompt is None) == (self.prompt_file is None):
            yield "prompt: give either prompt or prompt_file"
        if self.lora is not None and len(self.lora_scale) not in (1, len(self.lora)):
            yield (
                f"lora_scale: {len(self.lora_scale)} numbers for {len(self.lora)} LoRA files; give one for all, or one "
                "for each"
            )

    @property
    def loras(self) -> list[tuple[str, float]]:
        """Each LoRA file, or run folder, with its strength."""
        files = self.lora or []
        scales = self.lora_scale if len(self.lora_scale) == len(files) else self.lora_scale * len(files)
        return list(zip(files, scales, strict=True))

    @classmethod
    def missing(cls, name: str) -> str:
        if name != "pretrained_model_name_or_path":
            return super().missing(name)
        return f"{super().missing(name)}; a model, or a run's folder; --lora RUN brings its own"

    @classmethod
    def completion(cls, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """What the configuration of the LoRA run says that `lora`, or the model, names: base model and size."""
        model, lora = given.get("pretrained_model_name_or_path"), given.get("lora")
        taken: dict[str, Any] = {}
        named = [*(listed(lora, is_path=True) or ()), given.get("embeddings")]
        file = next((found for name in named if (found := _configuration_of(name))), None)
        if lora is None and (file := _configuration_of(model)) is not None:
            taken, model = {"lora": model}, None
        said = read_config_file(file) if file is not None else {}
        if file is None or "pretrained_model_name_or_path" not in said:
            return {}, None
        if model is None or _same_place(model, said["pretrained_model_name_or_path"]):
            taken |= {name: said[name] for name in BASE if name in said and (name not in given or name == BASE[0])}
        if not {"height", "width"} & given.keys():
            side = said.get("resolution")
            size = {"height": said.get("height", side), "width": said.get("width", side)}
            taken |= {name: value for name, value in size.items() if value is not None}
        listing = ", ".join(f"{name} {value}" for name, value in taken.items() if given.get(name) != value)
        return taken, f"{file} says: {listing}" if listing else None


BASE = (
    *("pretrained_model_name_or_path", "revision", "variant", "original_config", "sd_version", "allow_pickle"),
    "cache_dir",
    *("pretrained_vae_model_name_or_path", "pretrained_unet_name_or_path", "tokenizer_name", "drop_t5"),
    *("pretrained_text_encoder_4_name_or_path", "pretrained_tokenizer_4_name_or_path"),
)
"""What a run's configuration says of its model."""


def _same_place(one: Any, other: Any) -> bool:
    """Whether two names are of one model: the same id, or one folder however it was written."""
    try:
        return bool(one == other) or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
    except (OSError, RuntimeError, TypeError, ValueError):
        return False


def _configuration_of(name: Any) -> Path | None:
    """The configuration of the run of LoRA, or of new words, that a folder, or a checkpoint in it, or its file, is of;
    None where it is of none."""
    if not isinstance(name, str) or not name.strip():
        return None
    try:
        path = Path(name).expanduser()
        own = (LORA_FILE, lora_name(path.parent), embeddings_name(path.parent))
        folder = path.parent if path.name in own else path
        there = any((folder / name).is_file() for name in (LORA_FILE, EMBEDDINGS_FILE, embeddings_name(folder)))
        if not there or (folder / INDEX).is_file():
            return None
        run = folder.parent if folder.name.startswith("checkpoint-") else folder
        return run / CONFIG if (run / CONFIG).is_file() else None
    except (OSError, RuntimeError):  # no path at all, as the setting's own check says
        return None
