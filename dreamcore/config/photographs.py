"""Settings of the photographs, their words, and how they become training images."""

from __future__ import annotations

from typing import ClassVar, Literal

from .base import Settings, setting
from .concepts import Concept

Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]


class DataSettings(Settings):
    """The photographs."""

    GROUP = "photographs"
    WORDS: ClassVar[tuple[str, ...]] = ("instance_data_dir",)

    instance_data_dir: str | None = setting(None, may_change=True, example="photos/dog")
    """Folder with the photographs of the subject, or a .zip of one."""
    dataset_name: str | None = setting(None, may_change=True, example="diffusers/dog-example")
    """Dataset with the photographs, in place of the folder: what `datasets` saved to disk, parquet or Arrow files, a
    folder (or a .zip) of images with metadata, or the id of one on the Hugging Face Hub; its split "train" is used."""
    dataset_config_name: str | None = setting(None, example="default")
    """Configuration of the dataset, where it has several."""
    image_column: str = setting("image", example="picture")
    """Column of the images in the dataset."""
    cond_image_column: str | None = setting(None, example="input_image")
    """Column of reference images, of which the model learns to make the others; in a folder, NAME-cond.png is that of
    NAME.jpg."""
    instance_prompt: str | None = setting(None, may_be_empty=True, example="a photo of sks dog")
    """Words for the subject: an identifier and its class, "a photo of sks dog"; may hold {identifier} and {class}, as
    the presets' own does."""
    concepts: list[Concept] | None = setting(None)
    """Several subjects at once, each with folder, prompts, weight and repeats; in a configuration file only."""
    sub_folders: bool = setting(False)
    """Take the photographs of sub-folders too."""
    repeats: int = setting(1, ge=1, example=10)
    """Times that each photograph counts in an epoch."""
    validation_share: float = setting(0.0, ge=0, lt=1, example=0.1)
    """Share of the photographs that is held out of training; their loss, at fixed noise and timesteps, is logged."""


class WordSettings(Settings):
    """The words that each photograph is trained with."""

    GROUP = "words"

    use_captions: bool = setting(False)
    """Take each photograph's own words; the instance prompt serves those without."""
    caption_source: Literal["auto", "files", "metadata", "file_names"] = setting("auto")
    """Where they are: NAME.txt or .caption beside it, metadata.jsonl or .csv, either of these, or its own name."""
    caption_column: str = setting("text", example="caption")
    """Column of the captions in the metadata or the dataset; naming it turns a dataset's captions on."""
    missing_caption: Literal["prompt", "error"] = setting("prompt")
    """What a photograph without caption means: the instance prompt, or an error."""
    caption_template: str = setting("{caption}", example="{caption}, in the style of {identifier}")
    """Prompt of a photograph with caption, with places for {caption}, {identifier} and {class}."""
    identifier: str | None = setting(None, example="sks")
    """The rare word for the subject, which {identifier} stands for."""
    class_word: str | None = setting(None, example="dog")
    """What the subject is one of, which {class} stands for."""
    shuffle_tags: bool = setting(False)
    """Train with the tags of a caption (what its commas part) in several orders."""
    keep_tags: int = setting(0, ge=0, example=1)
    """Tags at the caption's beginning that keep their places."""
    caption_variants: int = setting(16, ge=1)
    """Orders drawn of each caption's tags."""
    caption_dropout: float = setting(0.0, ge=0, le=1, example=0.1)
    """Share of samples trained with empty words, which teaches unconditional prediction."""
    clip_l_dropout_rate: float = setting(0.0, ge=0, le=1, example=0.1)
    """Share of samples for which zeros stand for what the first CLIP answers, whatever the others do (2403.03206)."""
    clip_g_dropout_rate: float = setting(0.0, ge=0, le=1, example=0.1)
    """Share of samples for which zeros stand for what the second CLIP answers."""
    t5_dropout_rate: float = setting(0.0, ge=0, le=1, example=0.1)
    """Share of samples for which zeros stand for what T5 answers, as they do where it is left out."""


class ImageSettings(Settings):
    """How a photograph becomes a training image."""

    GROUP = "images"

    resolution: int | None = setting(None, gt=0, example=768)
    """Side of the square training image in pixels; the default is the model's own."""
    height: int | None = setting(None, gt=0, example=768)
    """Height of the training image in pixels, with `width`, in place of `resolution`."""
    width: int | None = setting(None, gt=0, example=512)
    """Width of the training image in pixels, with `height`, in place of `resolution`."""
    image_interpolation_mode: Interpolation = setting("lanczos")
    """How photographs are scaled."""
    center_crop: bool = setting(False)
    """Crop around the middle; otherwise each sample is cropped at random."""
    random_flip: bool = setting(False)
    """Mirror half of the samples left to right."""
    alpha_color: str = setting("white", example="#808080")
    """Colour behind transparent photographs: a name, or #rrggbb."""
    subject_crop: bool = setting(False)
    """Keep the subject inside the crop, where NAME-mask.png or an alpha channel shows it."""
    masked_loss: bool = setting(False)
    """Weigh the loss by place: 1 on the subject that the mask shows, `outside_weight` around it, scaled to mean 1."""
    outside_weight: float = setting(0.1, ge=0, le=1)
    """Weight of the surroundings in a masked loss."""
    aspect_ratio_buckets: bool = setting(False)
    """Train each photograph in a shape near its own, of the same pixel count, so that little is cropped away."""
    bucket_shapes: str | None = setting(None, example="512,768;768,512")
    """The buckets' heights and widths, "512,768;768,512"; the default is what `bucket_step` gives."""
    bucket_step: int = setting(64, ge=1)
    """Sides of the buckets are multiples of this."""
    cache_latents: bool = setting(True, may_change=True)
    """Encode each image variant once, before training; off means encoding anew in every update."""
    instance_variants: int = setting(16, ge=0)
    """Random crops and flips kept of each instance image; 0 draws a new one for every sample."""
    class_variants: int = setting(4, ge=0)
    """Random crops and flips kept of each class image; 0 draws a new one for every sample."""
    vae_batch_size: int = setting(1, ge=1, may_change=True, example=4)
    """Images of one shape that the autoencoder encodes at once, where latents are kept: more give a card more to do.
    With 1 an image's latents do not depend on the others; with more their last bits do."""
    vae_precision: Literal["fp32", "bf16"] = setting("fp32", may_change=True, example="bf16")
    """Precision in which the autoencoder encodes images, PyTorch: bf16 moves half the bytes, and is refused where the
    first image's latents then lie more than 2.9 % of their deviation from float32's (root mean square)."""
    cache_memory_gb: float = setting(4.0, gt=0, may_change=True)
    """Memory for cached latents in GiB; what goes beyond is kept on disk in the output folder during the run."""
    latent_cache_dir: str | None = setting(None, may_change=True, example="~/latents")
    """Folder that keeps cached latents for later runs, by content: image, transform, VAE and size."""


PHOTOGRAPHS = frozenset({*DataSettings.model_fields, *WordSettings.model_fields, *ImageSettings.model_fields})
"""The settings that are about photographs."""
