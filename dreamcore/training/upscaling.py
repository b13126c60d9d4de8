"""Runs of models that make an image of a smaller one (DeepFloyd IF, stage 2): what they need besides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..data import decode, find_images, from_uint8, storage
from ..errors import ConfigError
from ..models.folder import ModelFolder
from ..runs.overlaps import class_folder, refuse_among_results
from .class_images import ClassImages


def low_resolution(files: Sequence[str], setting: str) -> NDArray[np.float32]:
    """[N, 3, h, w] in [−1, 1] the images of files.

    Raises:
        ConfigError: one that cannot be decoded, or of another size than the first.
    """
    images = [decode(Path(file).expanduser()) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.size != images[0].size:
            (w, h), (first_w, first_h) = image.size, images[0].size
            raise ConfigError(
                f"{setting}: {file} is {w}×{h}, and {files[0]} is {first_w}×{first_h}; give images of one size"
            )
    return np.stack([from_uint8(np.asarray(image)).transpose(2, 0, 1) for image in images])


def check_upscaling(config: TrainConfig, model: ModelFolder, output: Path) -> None:
    """Refuse what a model that upscales cannot do: make images of words alone.

    Raises:
        ConfigError: a validation prompt without images, images that cannot be used, too few class images.
    """
    if not model.family.upscales:
        return
    if config.validation_prompt is not None:
        if config.validation_images is None:
            raise ConfigError(
                f"validation_prompt: {model.family.name} makes an image of a smaller one; name some with "
                "validation_images, or leave it out"
            )
        low_resolution(config.validation_images, "validation_images")
        refuse_among_results("validation_images", config.validation_images, config, model)
    for number, concept in enumerate(config.subjects()) if config.with_prior_preservation else ():
        if concept.class_prompt is None:
            continue
        folder = class_folder(output, number, concept)
        names = [path.name for path in find_images(folder, "class_data_dir")[0]] if storage.is_folder(folder) else []
        own = len(set(names) - ClassImages(folder, {}).manifest().keys())
        if own < config.num_class_images:
            raise ConfigError(
                f"num_class_images: {config.num_class_images}, and {folder} holds {own} photographs; "
                f"{model.family.name} makes none of words alone: put more there, or ask for fewer"
            )
