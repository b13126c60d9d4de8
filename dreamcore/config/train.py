"""Settings of `dreambooth train`, by subject.  One setting: one field, one docstring, one check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from ..errors import ConfigError
from .base import Settings, setting
from .common import ModelSettings, Scheduler
from .concepts import Concept
from .files import preset_names
from .method import MethodSettings
from .optimizers import AlgorithmSettings, contradictions
from .output import LoraFileSettings, OutputSettings
from .photographs import DataSettings, ImageSettings, WordSettings
from .places import SETTINGS, filled, lacking, place_in, places_in
from .placing import misplaced
from .selecting import SelectionSettings, wrongly_selected

LRScheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]


class PriorSettings(Settings):
    """Prior preservation (DreamBooth, arXiv 2208.12242, section 3.3)."""

    GROUP = "prior"

    with_prior_preservation: bool = setting(False)
    """Train on images of the class beside the subject's; it is not forgotten then."""
    prior_loss_weight: float = setting(1.0, gt=0)
    """Weight λ of the class images' loss."""
    class_data_dir: str | None = setting(None, may_change=True, example="photos/dogs")
    """Folder of class images; those that are missing are generated into it. Default: OUTPUT_DIR/class_images. Or a .zip
    with enough of them."""
    class_prompt: str | None = setting(None, may_be_empty=True, example="a photo of dog")
    """Words for the class without the identifier, "a photo of dog"; may hold {class}."""
    num_class_images: int = setting(100, ge=1, example=200)
    """Class images to train on; the user's own in the folder count."""
    sample_batch_size: int = setting(4, ge=1, may_change=True)
    """Images generated at a time, for class images and validation."""
    prior_num_inference_steps: int = setting(50, ge=1)
    """Denoising steps for a class image."""
    prior_guidance_scale: float | None = setting(None, ge=0, example=7.5)
    """Classifier-free guidance for class images; the default is the family's: 7.5 for SD and SDXL."""
    prior_generation_precision: Literal["no", "fp32", "fp16", "bf16"] | None = setting(None, may_change=True)
    """Precision in which class images are generated (no is fp32); the default is `mixed_precision`."""
    diff_output_preservation: bool = setting(False)
    """LoRA: keep what the model itself, without the factors, answers to the same noisy photographs under words for the
    class: no class images are needed, and they go with it.  Captions say `class_word` in the place of the
    identifier."""
    diff_output_preservation_multiplier: float = setting(1.0, gt=0)
    """Weight λ of that loss."""


class OptimizerSettings(AlgorithmSettings):
    """The updates: how many, how large, of how many samples."""

    GROUP = "optimizer"

    seed: int = setting(0, ge=0, lt=2**63, example=7)
    """Everything random in the run is a function of this number."""
    train_batch_size: int = setting(4, ge=1, may_change=True, example=1)
    """Instance samples of one device at a time; each brings its class sample with prior preservation."""
    gradient_accumulation_steps: int = setting(1, ge=1, may_change=True, example=2)
    """Micro-batches summed into one update."""
    num_train_epochs: int | None = setting(None, ge=1, may_change=True, example=100)
    """Passes over the data, in place of `max_train_steps`."""
    max_train_steps: int | None = setting(None, ge=1, may_change=True, example=800)
    """Updates in all; with neither, the family's usual number (400; 500 for LoRA), or the resumed run's own."""
    learning_rate: float | None = setting(None, gt=0, example=2e-6)
    """Learning rate; default 5e-6 for full fine-tuning, 1e-4 for LoRA."""
    text_encoder_lr: float | None = setting(None, gt=0, example=1e-6)
    """Learning rate of the text encoders; the default is `learning_rate`."""
    scale_lr: bool = setting(False)
    """Multiply the learning rate by batch size, accumulation and devices."""
    lr_scheduler: LRScheduler = setting("constant", example="cosine")
    """Course of the learning rate over the updates."""
    lr_warmup_steps: int = setting(0, ge=0, example=50)
    """Updates over which the learning rate rises from 0."""
    lr_num_cycles: int = setting(1, ge=1)
    """Restarts of cosine_with_restarts."""
    lr_power: float = setting(1.0, gt=0)
    """Exponent of polynomial."""
    max_grad_norm: float = setting(1.0, ge=0)
    """Gradients are scaled down to this norm over all trained weights; 0 turns clipping off."""


class ValidationSettings(Settings):
    """Images and losses along the way.  They never disturb the training's random numbers."""

    GROUP = "validation"

    validation_prompt: str | None = setting(None, may_change=True, may_be_empty=True, example="a sks dog in the snow")
    """Prompt of images before update 1, along the way and at the end; they are made from the same seeds each time;
    {instance_prompt} stands for the first concept's words, {identifier} and {class} for its own.  The presets have
    one."""
    validation_negative_prompt: str = setting("", may_change=True, may_be_empty=True, example="blurry, low quality")
    """What those images should not show."""
    num_validation_images: int = setting(4, ge=1, may_change=True)
    """Images each time."""
    validation_images: list[str] | None = setting(None, may_change=True, example=["small/1.png", "small/2.png"])
    """Image files, all of one size, that a model which upscales (DeepFloyd IF stage 2) makes a validation image of
    each; or references of which Flux Kontext and Flux.2 make `num_validation_images` each."""
    validation_steps: int = setting(100, ge=1, may_change=True, example=50)
    """Updates between validations."""
    validation_epochs: int | None = setting(None, ge=1, may_change=True, example=20)
    """Epochs between validations, in place of `validation_steps`."""
    validation_num_inference_steps: int = setting(25, ge=1, may_change=True)
    """Denoising steps of a validation image."""
    validation_guidance_scale: float | None = setting(None, ge=0, may_change=True, example=7.5)
    """Classifier-free guidance of validation images; the default is the family's: 7.5 for SD and SDXL."""
    validation_scheduler: Scheduler | None = setting(None, may_change=True)
    """Sampler of validation images; the default is dpmsolver++ where the noise levels admit it, else euler."""
    final_validation_prompt: str | None = setting(None, may_change=True, may_be_empty=True, example="a sks dog at sea")
    """Prompt of the images after the last update, in place of `validation_prompt`."""
    skip_final_inference: bool = setting(False, may_change=True)
    """Leave the validation after the last update out."""
    validation_data_dir: str | None = setting(None, may_change=True, example="photos/held-out")
    """Folder of photographs held out of training, or a .zip of one; their loss, at fixed noise and timesteps, is
    logged."""


class TrainConfig(
    LoraFileSettings,
    OutputSettings,
    SelectionSettings,
    ValidationSettings,
    OptimizerSettings,
    MethodSettings,
    PriorSettings,
    ImageSettings,
    WordSettings,
    DataSettings,
    ModelSettings,
):
    """All settings of a training run.  `from_mapping` checks them and names what is wrong."""

    ESSENTIAL: ClassVar[tuple[str, ...]] = (
        *("instance_data_dir", "instance_prompt", "pretrained_model_name_or_path", "output_dir", "use_lora"),
        *("resolution", "max_train_steps", "learning_rate", "with_prior_preservation", "class_prompt"),
        *("validation_prompt", "resume_from_checkpoint"),
    )

    @classmethod
    def missing(cls, name: str) -> str:
        said = super().missing(name)
        if name != "pretrained_model_name_or_path":
            return said
        return f"{said}; a preset brings one: --config {' | '.join(preset_names())}"

    def contradictions(self) -> Iterator[str]:
        if (self.height is None) != (self.width is None):
            yield "height and width: give both or neither"
        elif self.resolution is not None and self.height is not None and {self.height, self.width} != {self.resolution}:
            yield "resolution: given together with height and width; give one or the other"
        if "alpha_color" in self.model_fields_set:
            try:
                _rgb(self.alpha_color)
            except ConfigError as error:
                yield str(error)
        yield from self._wrong_concepts()
        yield from self._unfilled_prompts()
        yield from misplaced(self)
        yield from contradictions(self)
        yield from wrongly_selected(self)
        for name in ("train_text_encoder", "train_text_encoder_ti"):
            if self.pre_compute_text_embeddings and getattr(self, name):
                yield (
                    f"pre_compute_text_embeddings: given together with {name}, which changes the embeddings at every "
                    "update; give one or the other"
                )
        yield from self._unused_updates()
        if self.max_train_steps is not None and self.num_train_epochs is not None:
            yield "num_train_epochs: given together with max_train_steps; give one or the other"
        if self.use_lora and self.init_lora is not None and self.lora_method != "lora":
            yield (
                f"init_lora: given together with lora_method {self.lora_method}, which begins with values of its own; "
                "leave one of them out"
            )
        if self.do_edm_style_training and self.snr_gamma is not None:
            yield "do_edm_style_training: given together with snr_gamma, which weighs otherwise; give one or the other"
        if self.checkpointing_epochs is not None and "checkpointing_steps" in self.model_fields_set:
            yield "checkpointing_epochs: given together with checkpointing_steps; give one or the other"
        if self.validation_epochs is not None and "validation_steps" in self.model_fields_set:
            yield "validation_epochs: given together with validation_steps; give one or the other"

    def _unused_updates(self) -> Iterator[str]:
        if self.train_text_encoder and self.train_text_encoder_ti:
            yield (
                "train_text_encoder: given together with train_text_encoder_ti, which trains new words in place of the "
                "encoders; give one or the other"
            )
        if 0 < self.train_transformer_frac < 1 and self.train_text_encoder_ti_frac < 1:
            yield (
                f"train_transformer_frac: {self.train_transformer_frac} beside train_text_encoder_ti_frac "
                f"{self.train_text_encoder_ti_frac}: nothing would train in the last updates; give 1 for one of them"
            )

    @property
    def words_alone(self) -> bool:
        """Whether new words train, and nothing else."""
        return self.train_text_encoder_ti and self.train_transformer_frac == 0

    @property
    def background(self) -> tuple[int, int, int]:
        """`alpha_color` as RGB, 0…255."""
        return _rgb(self.alpha_color)

    def _wrong_concepts(self) -> Iterator[str]:
        example = '"a photo of sks dog", for instance'
        if self.concepts is None:
            yield from self.subjects()[0].contradictions()
            asks = "diff_output_preservation" if self.preserves_output and not self.captioned else None
            asks = "with_prior_preservation" if self.with_prior_preservation else asks
            if asks is not None and not self.class_prompt:
                yield f'class_prompt: {asks} needs one; "a photo of dog", for instance'
            if self.instance_prompt is None and not self.captioned and self._words_required():
                yield f"instance_prompt: required unless use_captions is on; {example}"
            return
        for name in sorted(Concept.model_fields.keys() & self.model_fields_set - {"identifier", "class_word"}):
            if getattr(self, name) != type(self).model_fields[name].default:
                yield f"{name}: given together with concepts; put it into each of them"
        if not self.concepts:
            yield "concepts: an empty list; give at least one concept, or leave the list out"
            return
        for number, concept in enumerate(self.concepts):
            yield from concept.contradictions(f"concepts.{number}.")
            if concept.instance_prompt is None and not self.captioned and self._words_required():
                yield f"concepts.{number}.instance_prompt: required unless use_captions is on; {example}"
            if concept.class_prompt is not None and not self.heeds_class_prompt:
                yield (
                    f"concepts.{number}.class_prompt: has no use without with_prior_preservation or "
                    "diff_output_preservation"
                )
        if self.with_prior_preservation and all(concept.class_prompt is None for concept in self.concepts):
            yield "class_prompt: with_prior_preservation needs one in at least one concept"

    def _unfilled_prompts(self) -> Iterator[str]:
        """Prompts with places for words that are not given; the validation's are about the first concept."""
        concepts = self.subjects() if self.concepts is None or self.concepts else []
        for number, concept in enumerate(concepts):
            name = "class_prompt" if self.concepts is None else f"concepts.{number}.class_prompt"
            wrong = lacking(name, concept.class_prompt, self.words_for(concept, concept.class_prompt))
            if self.heeds_class_prompt and wrong:
                yield wrong
        for name in ("validation_prompt", "final_validation_prompt"):
            text = getattr(self, name)
            words = self.words_for(concepts[0], text) if concepts else {}
            if wrong := place_in(name, text, ("identifier", "class")) or lacking(name, text, words):
                yield wrong

    def words_for(self, concept: Concept, text: str | None) -> dict[str, str | None]:
        """By place in a text about a concept, what fills it."""
        asked = {place: name for place, name in SETTINGS.items() if name in places_in(text)}
        return {place: getattr(concept, name) or getattr(self, name) for place, name in asked.items()}

    def class_words(self, concept: Concept) -> str | None:
        """A concept's class prompt with its places filled; None where it has no prior."""
        text = concept.class_prompt
        return None if text is None else filled(text, self.words_for(concept, text))

    def _words_required(self) -> bool:
        """Whether photographs need a prompt or captions."""
        return True

    def has_output(self) -> bool:
        """Whether a run is to write into `output_dir`."""
        return True

    def subjects(self) -> list[Concept]:
        """The concepts; without a list of them, the one that the settings themselves describe."""
        if self.concepts is not None:
            return self.concepts
        names = ["instance_data_dir", "dataset_name", "dataset_config_name", "instance_prompt", "repeats"]
        names += ["validation_data_dir", *(["class_prompt"] if self.heeds_class_prompt else [])]
        names += ["class_data_dir"] if self.with_prior_preservation else []
        return [Concept(**{name: getattr(self, name) for name in names})]

    @property
    def heeds_class_prompt(self) -> bool:
        """Whether anything is trained under it."""
        return self.with_prior_preservation or self.preserves_output

    @property
    def preserves_output(self) -> bool:
        """Whether the model's own answers are kept: where factors can be switched off."""
        return self.use_lora and self.diff_output_preservation

    @property
    def captioned(self) -> bool:
        """Whether photographs may have words of their own."""
        named = {"dataset_name", "caption_column"} <= self.given().keys() and self.dataset_name is not None
        return self.use_captions or named


def _rgb(colour: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue, *_ = ImageColor.getrgb(colour)
    except ValueError:
        raise ConfigError(f"alpha_color: {colour!r} is no colour; give a name, or #rrggbb") from None
    return red, green, blue
