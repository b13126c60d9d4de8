"""What the settings name, opened and checked before any framework is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..config import TrainConfig
from ..config.concepts import Concept
from ..data import Crop, ImageFolder, Table, bucket_crops, bucket_shapes
from ..diffusion.randomness import held_out_images
from ..errors import ConfigError
from ..hub.datasets import find_dataset
from ..models.folder import ModelFolder
from ..runs.overlaps import refuse_overlaps
from ..text.new_words import words_of
from ..text.prompts import instance_prompts, preserved_prompts
from .class_images import ClassImages
from .settings import image_size


@dataclass(frozen=True)
class Subject:
    """A concept's photographs, each with its transform and its words."""

    concept: Concept
    images: ImageFolder
    crops: list[Crop]
    prompts: list[list[str]]
    """Wordings of each image."""
    preserved: list[list[str]] = field(default_factory=list)
    """What each says of the class, where the model's own answers to that are kept."""


@dataclass(frozen=True)
class HeldOutImages:
    """Photographs that do not train."""

    images: ImageFolder
    crops: list[Crop]
    prompts: list[str]


@dataclass(frozen=True)
class TrainingData:
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
        return _crops(folder, crop, self.shapes)


def open_training_data(config: TrainConfig, model: ModelFolder, warn: Callable[[str], None]) -> TrainingData:
    """Open and check every photograph.

    Raises:
        ConfigError: naming the setting or file, what it is, and what would be right.
    """
    height, width = image_size(config, model, warn)
    crop = crop_of(config, height, width)
    data = TrainingData(model, crop, bucket_choice(config, crop, model.size_step), [], [])
    subjects, held_out = open_subjects(config, crop, data.shapes, warn, model)
    return replace(data, subjects=subjects, held_out=held_out)


def crop_of(config: TrainConfig, height: int, width: int) -> Crop:
    """The transform that the settings ask for, to this size."""
    return Crop(
        height,
        width,
        config.center_crop,
        config.random_flip,
        config.subject_crop,
        config.image_interpolation_mode,
    )


def open_subjects(
    config: TrainConfig,
    crop: Crop,
    shapes: Sequence[tuple[int, int]],
    warn: Callable[[str], None],
    model: ModelFolder | None = None,
) -> tuple[list[Subject], list[HeldOutImages]]:
    """Open and check every photograph, those that train and those that are held out; a run and `data` alike.

    Args:
        crop: of every image, where there are no buckets.
        shapes: (H, W) of the buckets.
        model: None where none is named.

    Raises:
        ConfigError: as `open_training_data`.
    """
    refuse_overlaps(config, model)
    subjects, held_out = list[Subject](), list[HeldOutImages]()
    refers = model is not None and model.family.reference_time is not None
    for number, concept in enumerate(config.subjects()):
        prefix = "" if config.concepts is None else f"concepts.{number}."
        check_class_images(config, concept)
        folder = open_photos(config, concept, prefix, warn, references=refers)
        kept, held = parted(folder, config.validation_share, config.seed, number, prefix + concept.source[0])
        worded = concept.instance_prompt is not None or config.captioned  # `data` can look at photographs alone
        words = instance_prompts(config, concept, kept, number) if worded else [[] for _ in kept.photos]
        keeps = config.preserves_output and worded
        about_class = preserved_prompts(config, concept, kept, words) if keeps else []
        subjects.append(Subject(concept, kept, _crops(kept, crop, shapes), words, about_class))
        middle = replace(crop, center_crop=True, random_flip=False)
        for images in (held, open_held_out(config, concept, prefix, warn, references=refers)):
            if images is not None:
                prompts = [wordings[0] for wordings in instance_prompts(config, concept, images)] if worded else []
                held_out.append(HeldOutImages(images, _crops(images, middle, shapes), prompts))
    _refuse_unsaid(config, subjects)
    return subjects, held_out


def _refuse_unsaid(config: TrainConfig, subjects: Sequence[Subject]) -> None:
    """Refuse new words that no photograph's words hold: nothing would be learned of them."""
    if not config.train_text_encoder_ti:
        return
    said = {text for subject in subjects for wordings in subject.prompts for text in wordings}
    unsaid = [word for word in words_of(config) if not any(word in text for text in said)]
    if said and (unsaid or not words_of(config)):
        first = min(said, key=len)
        raise ConfigError(
            f"token_abstraction: {', '.join(unsaid) or repr(config.token_abstraction)}: in none of the photographs' "
            f"words, such as {first!r}; write it where the subject's name belongs, or give the word that stands there"
        )


def open_photos(
    config: TrainConfig, concept: Concept, prefix: str, warn: Callable[[str], None], *, references: bool = False
) -> ImageFolder:
    """A concept's photographs, with the captions and masks that the settings ask for.

    Args:
        prefix: put before the settings' names in messages.
        references: use the reference images beside them.
    """
    setting, name = concept.source
    if setting == "dataset_name":
        folder = _open_dataset(config, name, concept.dataset_config_name, prefix + setting, references)
    else:
        folder = _open_folder(config, Path(name).expanduser(), prefix + setting, config.sub_folders, references)
    for note in folder.notes:
        warn(f"{folder.folder}: {note}")
    if _masks(config) and all(photo.mask is None for photo in folder.photos):
        named = "subject_crop" if config.subject_crop else "masked_loss"
        raise ConfigError(
            f"{named}: no image of {folder.folder} has a mask; put NAME-mask.png beside each, or use images with alpha"
        )
    return folder


def open_held_out(
    config: TrainConfig, concept: Concept, prefix: str, warn: Callable[[str], None], *, references: bool = False
) -> ImageFolder | None:
    """The photographs of `validation_data_dir`, if there is one."""
    if concept.validation_data_dir is None:
        return None
    path = Path(concept.validation_data_dir).expanduser()
    folder = _open_folder(config, path, f"{prefix}validation_data_dir", config.sub_folders, references)
    for note in folder.notes:
        warn(f"{folder.folder}: {note}")
    return folder


def _open_folder(
    config: TrainConfig, path: Path, setting: str, sub_folders: bool, references: bool, listed: bool = False
) -> ImageFolder:
    """A folder of photographs; their words are in metadata files where they are `listed`, else where settings say."""
    source = "metadata" if listed else config.caption_source if config.captioned else "auto"
    by_column = config.captioned and source in ("auto", "metadata")
    return ImageFolder.open(
        path,
        setting=setting,
        captions=source if config.captioned else False,
        caption_column=config.caption_column if by_column else "text",
        every_caption=config.captioned and config.missing_caption == "error",
        sub_folders=sub_folders,
        masks=_masks(config),
        references=references,
        background=config.background,
    )


def _open_dataset(
    config: TrainConfig, name: str, config_name: str | None, setting: str, references: bool
) -> ImageFolder:
    dataset = find_dataset(name, config_name, config.cache_dir)
    image_column, beside = config.image_column, config.cond_image_column if references else None
    if not dataset.files:
        for column, given, usual in (("image_column", image_column, "image"), ("cond_image_column", beside, None)):
            if given != usual:
                raise ConfigError(f"{column}: {given!r}: {name} is a folder of images, not a table; leave it out")
        return _open_folder(config, dataset.root, setting, True, references, listed=True)
    captions = config.caption_column if config.captioned else None
    folder = ImageFolder.open_table(
        Table(dataset.root, dataset.files, image_column, captions, beside),
        setting=setting,
        every_caption=config.captioned and config.missing_caption == "error",
        masks=_masks(config),
        background=config.background,
    )
    folder.notes[:0] = dataset.notes
    return folder


def _masks(config: TrainConfig) -> bool:
    return config.subject_crop or config.masked_loss


def parted(
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
    chosen = set(held_out_images(seed, number).permutation(count)[:held].tolist())
    return (
        folder.part([p for i, p in enumerate(folder.photos) if i not in chosen]),
        folder.part([p for i, p in enumerate(folder.photos) if i in chosen]),
    )


def _crops(folder: ImageFolder, crop: Crop, shapes: Sequence[tuple[int, int]]) -> list[Crop]:
    """`crop` in the shape that fits each image."""
    return bucket_crops([photo.size for photo in folder.photos], crop, shapes)


def bucket_choice(config: TrainConfig, crop: Crop, factor: int) -> list[tuple[int, int]]:
    """(H, W) of the shapes that training images have; `factor` divides their sides."""
    if not config.aspect_ratio_buckets:
        return [(crop.height, crop.width)]
    if config.bucket_shapes is not None:
        return _named_shapes(config.bucket_shapes, factor)
    step = config.bucket_step
    if step % factor:
        near = max(1, round(step / factor)) * factor
        raise ConfigError(f"bucket_step: {step} is not a multiple of {factor}, as this model needs; {near} would be")
    return bucket_shapes(crop.height, crop.width, step)


def _named_shapes(text: str, factor: int) -> list[tuple[int, int]]:
    """The (H, W) that `bucket_shapes` names."""
    try:
        shapes = [(int(height), int(width)) for height, width in (part.split(",") for part in text.split(";"))]
    except ValueError:
        raise ConfigError(f"bucket_shapes: {text!r}: expected heights and widths, as in 512,768;768,512") from None
    if wrong := [side for shape in shapes for side in shape if side < factor or side % factor]:
        raise ConfigError(f"bucket_shapes: {wrong[0]} is not a multiple of {factor}, as this model needs")
    return sorted(set(shapes), key=lambda shape: (shape[1] / shape[0], shape))


def check_class_images(config: TrainConfig, concept: Concept) -> None:
    """Refuse class images of the user's that cannot be read, and a zip of too few of them."""
    if concept.class_prompt is not None and concept.class_data_dir is not None:
        ClassImages(Path(concept.class_data_dir).expanduser(), {}).require(config.num_class_images)
