"""Settings of `dreambooth data`: those of training, of which a look at the photographs needs only some."""

from __future__ import annotations

from collections.abc import Iterator

from .base import setting
from .train import TrainConfig


class DataConfig(TrainConfig):
    """What training would see of the photographs.  A training run's own configuration serves as it is."""

    pretrained_model_name_or_path: str | None = setting(None)  # type: ignore[assignment]
    """Model whose size and tokenizer count; left out, 512 pixels and no tokens."""
    sheet: str = setting("data-sheet.png")
    """File of the contact sheet; where there is one already, the new one's name gets a number."""

    def contradictions(self) -> Iterator[str]:
        if self.instance_data_dir is None and self.dataset_name is None and self.concepts is None:
            yield "instance_data_dir: required; dreambooth data FOLDER, or --dataset_name"
            return
        yield from super().contradictions()

    def has_output(self) -> bool:
        return "output_dir" in self.model_fields_set

    def _words_required(self) -> bool:
        return False
