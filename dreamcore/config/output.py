"""Settings of `dreambooth train` about what it writes: the run's folder, the finished model, LoRA files' headers."""

from __future__ import annotations

from typing import Literal

from .base import Settings, setting

ExportFormat = Literal["diffusers", "ppdiffusers"]
SavePrecision = Literal["fp32", "fp16", "bf16"]
Layout = Literal["dreambooth", "colossalai", "structured-lora", "mindone-sd2", "mindone"]


class OutputSettings(Settings):
    """The run folder, its checkpoints and its logs."""

    GROUP = "output"

    output_dir: str = setting("dreambooth-model", may_change=True, example="my-dog")
    """Folder of the run."""
    overwrite_output_dir: bool = setting(False, may_change=True)
    """Replace the run that the output folder holds."""
    checkpointing_steps: int = setting(500, ge=1, may_change=True)
    """Updates between checkpoints; the last update is followed by one too."""
    checkpointing_epochs: int | None = setting(None, ge=1, may_change=True, example=10)
    """Epochs between checkpoints, in place of `checkpointing_steps`."""
    checkpoints_total_limit: int | None = setting(None, ge=0, may_change=True, example=2)
    """Checkpoints kept; an older one goes only after a newer one is safely written, and with 0 the last one after the
    finished model is."""
    checkpoint_last: bool = setting(True, may_change=True)
    """Keep the checkpoint after the last update where no interval ends; else it goes once the finished model is
    written, unless it is the only one, and the limit does not count it."""
    resume_from_checkpoint: str | None = setting(None, may_change=True, example="latest")
    """`latest`, a checkpoint's name in the output folder, or a path."""
    reset_optimizer: bool = setting(False, may_change=True)
    """Resume with the checkpoint's weights and a fresh optimizer: needed after training with another one."""
    export_format: ExportFormat = setting("diffusers", may_change=True)
    """Layout of the finished model: `diffusers`, or `ppdiffusers` (model_state.pdparams), which only that reads."""
    save_precision: SavePrecision = setting("fp32", may_change=True, example="fp16")
    """Precision of the numbers in the finished model's files; training itself and its checkpoints stay in float32."""
    skip_save_text_encoder: bool = setting(False, may_change=True)
    """Leave the text encoders out of the finished model, which can be loaded only where they are given."""
    layout: Layout = setting("dreambooth", may_change=True)
    """Where images, log and checkpoints lie in the output folder: as another trainer has them, beside our records."""
    push_to_hub: bool = setting(False, may_change=True)
    """Publish the finished model on the Hugging Face Hub, with a card and its validation images; the token comes from
    HF_TOKEN or the login."""
    hub_model_id: str | None = setting(None, may_change=True, example="me/my-dog")
    """OWNER/NAME of the model on the Hub; the default is the output folder's name, under your account."""
    hub_private_repo: bool = setting(False, may_change=True)
    """Keep the model on the Hub private."""
    logging_steps: int = setting(10, ge=1, may_change=True)
    """Updates between copies of the losses from the device; every update is logged all the same."""
    logging_dir: str = setting("logs", may_change=True, example="/data/logs")
    """Folder for trackers' files, inside the output folder unless absolute."""
    report_to: str = setting("tensorboard", may_change=True, example="wandb")
    """Trackers beside metrics.jsonl: tensorboard, visualdl, wandb, several with commas, all, or none."""


class LoraFileSettings(Settings):
    """What LoRA files say of themselves in their headers, which other programs show."""

    GROUP = "header"

    lora_metadata: Literal["public", "all", "none"] = setting("public", may_change=True)
    """What stands there: how it was trained, its words and a small sample image; `all`: also captions and folders."""
    metadata_title: str | None = setting(None, may_change=True, example="My dog")
    """Title; the default is the output folder's name."""
    metadata_author: str | None = setting(None, may_change=True, example="Ada")
    """Who made it."""
    training_comment: str | None = setting(None, may_change=True, example="second try, without the blurred photographs")
    """A comment."""
