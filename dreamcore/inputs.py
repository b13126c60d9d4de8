"""What the settings name, opened and checked before any framework is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .choices import image_size, instance_prompts
from .config import TrainConfig
from .data import Crop, ImageFolder, find_images
from .errors import ConfigError
from .modelfolder import ModelFolder


@dataclass(frozen=True)
class Inputs:
    """The model, the photographs and their words."""

    model: ModelFolder
    crop: Crop
    instances: ImageFolder
    prompts: list[str]
    """Words of each instance image."""
    held_out: ImageFolder | None
    held_out_prompts: list[str]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[C, h, w]."""
        factor = self.model.latent_factor
        return self.model.latent_channels, self.crop.height // factor, self.crop.width // factor


def check_inputs(config: TrainConfig, warn: Callable[[str], None]) -> Inputs:
    """Open and check the model folder and every photograph.

    Raises:
        ConfigError: naming the setting or file, what it is, and what would be right.
    """
    model = ModelFolder.open(config.pretrained_model_name_or_path, config.revision, config.variant)
    height, width = image_size(config, model, warn)
    crop = Crop(height, width, config.center_crop, config.random_flip)
    captions = config.use_captions
    instances = ImageFolder.open(config.instance_data_dir, setting="instance_data_dir", captions=captions)
    prompts = instance_prompts(config, instances)
    held_out, held_out_prompts = None, []
    if config.validation_data_dir is not None:
        held_out = ImageFolder.open(config.validation_data_dir, setting="validation_data_dir", captions=captions)
        held_out_prompts = instance_prompts(config, held_out)
    for folder in (instances, held_out):
        for note in folder.notes if folder else ():
            warn(f"{folder.folder}: {note}" if folder else note)
    _check_folders(config)
    return Inputs(model, crop, instances, prompts, held_out, held_out_prompts)


def _check_folders(config: TrainConfig) -> None:
    """Refuse folders that would mix photographs with results, and class images that cannot be read."""
    instance, output = Path(config.instance_data_dir).resolve(), Path(config.output_dir).resolve()
    if instance == output:
        raise ConfigError(f"output_dir: {config.output_dir}: is instance_data_dir as well; choose another folder")
    if not config.with_prior_preservation or config.class_data_dir is None:
        return
    classes = Path(config.class_data_dir)
    if classes.resolve() == instance:
        raise ConfigError(f"class_data_dir: {classes}: is instance_data_dir as well; class images need their own")
    if classes.exists() and find_images(classes, "class_data_dir")[0]:
        ImageFolder.open(classes, setting="class_data_dir")
