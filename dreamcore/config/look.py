"""Settings of `dreambooth data`: those of training, of which a look at the photographs needs only some."""

from __future__ import annotations

from collections.abc import Iterator

from .base import setting
from .photographs import PHOTOGRAPHS
from .train import TrainConfig

IN_TRAINING = frozenset(
    (
        "cache_latents",
        "vae_batch_size",
        "cache_memory_gb",
        "latent_cache_dir",
        "instance_variants",
        "class_variants",
        "caption_dropout",
    )
)
"""Settings of the photographs that show in nothing before training."""


class DataConfig(TrainConfig):
    """What training would see of the photographs.  A training run's own configuration serves as it is."""

    GROUP = "sheet"
    ESSENTIAL = (
        *("instance_data_dir", "instance_prompt", "pretrained_model_name_or_path", "resolution", "center_crop"),
        *("use_captions", "aspect_ratio_buckets", "validation_data_dir", "sheet"),
    )
    LOOKS_AT = (PHOTOGRAPHS - IN_TRAINING) | {
        *("pretrained_model_name_or_path", "revision", "variant", "cache_dir", "tokenizer_name", "original_config"),
        *("sd_version", "allow_pickle", "seed", "validation_data_dir", "sheet"),
    }

    pretrained_model_name_or_path: str | None = setting(None, example="my-model")  # type: ignore[assignment]
    """Model whose size and tokenizer count; left out, 512 pixels and no tokens."""
    sheet: str = setting("data-sheet.png", example="sheet.png")
    """File of the contact sheet; where there is one already, the new one's name gets a number."""

    def contradictions(self) -> Iterator[str]:
        if self.instance_data_dir is None and self.dataset_name is None and self.concepts is None:
            yield "instance_data_dir: required; dreambooth data FOLDER (or a .zip), or --dataset_name"
            return
        yield from super().contradictions()

    def has_output(self) -> bool:
        return "output_dir" in self.model_fields_set

    def _words_required(self) -> bool:
        return False
