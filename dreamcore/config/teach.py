"""Settings of `dreambooth teach`: those of training, nearly all of which it chooses itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from .base import setting
from .train import TrainConfig


class TeachConfig(TrainConfig):
    """What is taught.  Any setting of `train` can be given too, and wins over what would be chosen."""

    WORDS: ClassVar[tuple[str, ...]] = ("instance_data_dir", "class_word")
    OWN: ClassVar[tuple[str, ...]] = ("yes",)
    """Settings that `train` has not."""

    GROUP = "teach"
    ESSENTIAL: ClassVar[tuple[str, ...]] = (
        *("instance_data_dir", "class_word", "pretrained_model_name_or_path", "yes", "output_dir", "identifier"),
        *("max_train_steps", "validation_prompt", "backend", "device"),
    )

    pretrained_model_name_or_path: str | None = setting(  # type: ignore[assignment]
        None, example="runs/my-model"
    )
    """Model that learns; left out, one that is on this machine is offered, else Stable Diffusion 1.5 from the Hub."""
    output_dir: str | None = setting(None, may_change=True, example="my-dog")  # type: ignore[assignment]
    """Folder of the run; left out, a new one named after the photographs: dog-lora, or dog-model."""
    yes: bool = setting(False)
    """Begin without asking; needed where there is no terminal to ask in."""

    def contradictions(self) -> Iterator[str]:
        if self.concepts is not None or self.dataset_name is not None:
            name = "concepts" if self.concepts is not None else "dataset_name"
            yield f"{name}: teach takes one folder of photographs; `dreambooth train` takes {name}"
        elif self.instance_data_dir is None:
            yield "instance_data_dir: which photographs?  dreambooth teach FOLDER --class dog"
        if self.resume_from_checkpoint is not None or self.overwrite_output_dir:
            name = "overwrite_output_dir" if self.overwrite_output_dir else "resume_from_checkpoint"
            yield f"{name}: teach goes on with what is unfinished by itself, and overwrites nothing; remove it"

    def _words_required(self) -> bool:
        return False

    def own(self) -> dict[str, Any]:
        """The settings of `train` that the user gave; None takes one back that would be chosen."""
        own = {name: value for name, value in self.given().items() if name not in (*self.OWN, *self.suggested)}
        chosen = ("pretrained_model_name_or_path", "class_word", "output_dir")
        return {name: value for name, value in own.items() if value is not None or name not in chosen}
