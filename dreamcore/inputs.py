"""What the settings name, opened and checked before any framework is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .choices import image_size
from .config import TrainConfig
from .config.concepts import Concept
from .data import Crop, ImageFolder, bucket_crops, bucket_shapes, find_images
from .errors import ConfigError
from .modelfolder import ModelFolder
from .prompts import instance_prompts
from .rng import Purpose, generator


@dataclass(frozen=True)
class Subject:
    """A concept's photographs, each with its transform and its words."""

    concept: Concept
    images: ImageFolder
    crops: list[Crop]
    prompts: list[list[str]]
    """Wordings of each image."""


@dataclass(frozen=True)
class HeldOutImages:
    """Photographs that do not train."""

    images: ImageFolder
    crops: list[Crop]
    prompts: list[str]


@dataclass(frozen=True)
class Inputs:
    """The model, the photographs and their words."""

    model: ModelFolder
    crop: Crop
    """Of every image, where there are no buckets."""
    shapes: list[tuple[int, int]]
    """(H, W) of the buckets; of the crop alone where there are none."""
    subjects: list[Subject]
    held_out: list[HeldOutImages]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[C, h, w] of a latent of the crop's own shape."""
        factor = self.model.latent_factor
        return self.model.latent_channels, self.crop.height // factor, self.crop.width // factor

    def crops(self, folder: ImageFolder, crop: Crop) -> list[Crop]:
        """`crop` in the shape that fits each image."""
        return bucket_crops([photo.size for photo in folder.photos], crop, self.shapes)


def check_inputs(config: TrainConfig, warn: Callable[[str], None]) -> Inputs:
    """Open and check the model folder and every photograph.

    Raises:
        ConfigError: naming the setting or file, what it is, and what would be right.
    """
    model = ModelFolder.of(config)
    height, width = image_size(config, model, warn)
    crop = Crop(height, width, config.center_crop, config.random_flip, config.subject_crop)
    inputs = Inputs(model, crop, bucket_choice(config, crop, model.size_step), [], [])
    concepts = config.subjects()
    for number, concept in enumerate(concepts):
        check_folders(config, concept)
        setting = "instance_data_dir" if config.concepts is None else f"concepts.{number}.instance_data_dir"
        folder = open_photos(config, concept.instance_data_dir, setting, warn)
        kept, held = _parted(folder, config.validation_share, config.seed, number, setting)
        words = instance_prompts(config, concept, kept, number)
        inputs.subjects.append(Subject(concept, kept, inputs.crops(kept, crop), words))
        if held:
            inputs.held_out.append(_held_out(config, concept, held, inputs))
    if config.validation_data_dir is not None:
        folder = open_photos(config, config.validation_data_dir, "validation_data_dir", warn)
        inputs.held_out.append(_held_out(config, concepts[0], folder, inputs))
    return inputs


def open_photos(config: TrainConfig, path: str, setting: str, warn: Callable[[str], None]) -> ImageFolder:
    """The photographs of a folder, with the captions and masks that the settings ask for."""
    masks = config.subject_crop or config.masked_loss
    by_column = config.use_captions and config.caption_source in ("auto", "metadata")
    folder = ImageFolder.open(
        Path(path).expanduser(),
        setting=setting,
        captions=config.caption_source if config.use_captions else False,
        caption_column=config.caption_column if by_column else "text",
        every_caption=config.use_captions and config.missing_caption == "error",
        sub_folders=config.sub_folders,
        masks=masks,
    )
    for note in folder.notes:
        warn(f"{folder.folder}: {note}")
    if masks and setting != "validation_data_dir" and all(photo.mask is None for photo in folder.photos):
        named = "subject_crop" if config.subject_crop else "masked_loss"
        raise ConfigError(
            f"{named}: no image of {folder.folder} has a mask; put NAME-mask.png beside each, or use images with alpha"
        )
    return folder


def _parted(
    folder: ImageFolder, share: float, seed: int, number: int, setting: str
) -> tuple[ImageFolder, ImageFolder | None]:
    """The photographs to train on, and those held out."""
    count = len(folder.photos)
    if not share:
        return folder, None
    held = max(1, round(share * count))
    if held >= count:
        raise ConfigError(
            f"validation_share: {share} of the {count} images of {setting} leaves none to train on; use a smaller "
            "share, or more photographs"
        )
    chosen = set(generator(seed, Purpose.HELD_OUT, number, 0, 1).permutation(count)[:held].tolist())
    return (
        ImageFolder(folder.folder, [p for i, p in enumerate(folder.photos) if i not in chosen], []),
        ImageFolder(folder.folder, [p for i, p in enumerate(folder.photos) if i in chosen], []),
    )


def _held_out(config: TrainConfig, concept: Concept, folder: ImageFolder, inputs: Inputs) -> HeldOutImages:
    """Cropped in the middle, in their first wording."""
    crop = replace(inputs.crop, center_crop=True, random_flip=False)
    prompts = [wordings[0] for wordings in instance_prompts(config, concept, folder)]
    return HeldOutImages(folder, inputs.crops(folder, crop), prompts)


def bucket_choice(config: TrainConfig, crop: Crop, factor: int) -> list[tuple[int, int]]:
    """(H, W) of the shapes that training images have; `factor` divides their sides."""
    if not config.aspect_ratio_buckets:
        return [(crop.height, crop.width)]
    step = config.bucket_step
    if step % factor:
        near = max(1, round(step / factor)) * factor
        raise ConfigError(f"bucket_step: {step} is not a multiple of {factor}, as this model needs; {near} would be")
    return bucket_shapes(crop.height, crop.width, step)


def check_folders(config: TrainConfig, concept: Concept) -> None:
    """Refuse folders that would mix photographs with results, and class images that cannot be read."""
    instance, output = Path(concept.instance_data_dir).resolve(), Path(config.output_dir).resolve()
    if instance == output:
        raise ConfigError(f"output_dir: {config.output_dir}: is instance_data_dir as well; choose another folder")
    if concept.class_prompt is None or concept.class_data_dir is None:
        return
    classes = Path(concept.class_data_dir)
    if classes.resolve() == instance:
        raise ConfigError(f"class_data_dir: {classes}: is instance_data_dir as well; class images need their own")
    if classes.exists() and find_images(classes, "class_data_dir")[0]:
        ImageFolder.open(classes, setting="class_data_dir")
