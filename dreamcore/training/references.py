"""Reference images: what Flux Kontext and Flux.2 are to make an image of, beside the words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..config.when import OURS
from ..data import Crop, decode
from ..data.crop import to_planes
from ..errors import ConfigError
from ..models.folder import ModelFolder
from ..runs.overlaps import refuse_among_results
from .training_data import TrainingData


def reference_images(files: Sequence[str], height: int, width: int) -> NDArray[np.float32]:
    """[N, 3, height, width] in [−1, 1] the middle of each file's image, scaled to cover that: as photographs are.

    Raises:
        ConfigError: one that cannot be decoded.
    """
    crop = Crop(height, width, center_crop=True, random_flip=False)
    scaled = [crop.scale(decode(Path(file).expanduser())) for file in files]
    return np.stack([to_planes(crop.cut(image, crop.place(image.size, None))) for image in scaled])


def require_torch(backend: str, setting: str) -> None:
    """Refuse reference images where nobody has seen them trained or made.

    Raises:
        ConfigError: on such a backend.
    """
    if backend in OURS and backend != "torch":
        raise ConfigError(f"{setting}: reference images on {backend} are not tested; use --backend torch")


def check_references(config: TrainConfig, data: TrainingData, backend: str) -> None:
    """Refuse reference images that the run cannot use, of the photographs and of validation's images.

    Raises:
        ConfigError: on another backend than PyTorch; photographs that are held out have them and those that train do
            not, or the other way round; a file that cannot be decoded.
    """
    if data.model.family.reference_time is None:
        return
    refers = {subject.images.refers for subject in data.subjects}
    if True in refers:
        folder = next(subject.images.folder for subject in data.subjects if subject.images.refers)
        require_torch(backend, f"{folder}")
    for held in data.held_out:
        if held.images.refers not in refers:
            raise ConfigError(
                f"{held.images.folder}: its photographs have {'' if held.images.refers else 'no '}reference images "
                f"(NAME-cond.png), and those that train have {'none' if held.images.refers else 'some'}; give both or "
                "neither"
            )
    if config.validation_prompt is not None and config.validation_images is not None:
        require_torch(backend, "validation_images")
        reference_images(config.validation_images, data.crop.height, data.crop.width)
        refuse_among_results("validation_images", config.validation_images, config, data.model)


def reference_of(
    file: str | None, model: ModelFolder, backend: str, size: tuple[int, int]
) -> NDArray[np.float32] | None:
    """[1, 3, H, W] the reference that `generate` is given, for images of (H, W); None without.

    Raises:
        ConfigError: as `reference_images`; or on another backend than PyTorch.
    """
    if file is None or model.family.reference_time is None:
        return None
    require_torch(backend, "image")
    return reference_images([file], *size)
