"""Settings of `dreambooth train`, by subject.  One setting: one field, one docstring, one check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ..errors import ConfigError
from .base import Settings, setting
from .common import ModelSettings, Scheduler, WeightingScheme
from .concepts import Concept
from .files import preset_names
from .output import LoraFileSettings, OutputSettings
from .photographs import DataSettings, ImageSettings, WordSettings
from .places import place_in

LRScheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]


class PriorSettings(Settings):
    """Prior preservation (DreamBooth, arXiv 2208.12242, section 3.3)."""

    with_prior_preservation: bool = setting(False)
    """Train on images of the class beside the subject's, so that the class is not forgotten."""
    prior_loss_weight: float = setting(1.0, gt=0)
    """Weight λ of the class images' loss."""
    class_data_dir: str | None = setting(None, may_change=True)
    """Folder of class images; those that are missing are generated into it. Default: OUTPUT_DIR/class_images."""
    class_prompt: str | None = setting(None, may_be_empty=True)
    """Words for the class without the identifier, "a photo of dog"."""
    num_class_images: int = setting(100, ge=1)
    """Class images to train on; the user's own in the folder count."""
    sample_batch_size: int = setting(4, ge=1, may_change=True)
    """Images generated at a time, for class images and validation."""
    prior_num_inference_steps: int = setting(50, ge=1)
    """Denoising steps for a class image."""
    prior_guidance_scale: float | None = setting(None, ge=0)
    """Classifier-free guidance for class images; the default is the family's: 7.5 for SD and SDXL."""
    prior_generation_precision: Literal["no", "fp32", "fp16", "bf16"] | None = setting(None, may_change=True)
    """Precision in which class images are generated (no is fp32); the default is `mixed_precision`."""


class MethodSettings(Settings):
    """What is trained."""

    use_lora: bool = setting(False)
    """Train low-rank factors beside the frozen weights (LoRA, arXiv 2106.09685) and not the weights themselves."""
    rank: int = setting(4, ge=1)
    """Rank of the LoRA factors; with `init_lora` the default is its file's."""
    lora_alpha: float | None = setting(None, gt=0)
    """LoRA's scale is alpha / rank; the default alpha is the rank."""
    init_lora: str | None = setting(None, may_change=True)
    """LoRA file, or the folder of a run that made one, whose factors training begins with."""
    lora_dropout: float = setting(0.0, ge=0, lt=1)
    """Dropout before the LoRA factors."""
    lora_layers: list[str] | None = setting(None)
    """Endings of the denoiser's layer names that get factors; the default is the attention projections."""
    lora_blocks: list[str] | None = setting(None)
    """Numbers of the transformer blocks that get factors; the default is all of them."""
    train_text_encoder: bool = setting(False)
    """Train the text encoders (not T5) as well as the denoiser."""
    pre_compute_text_embeddings: bool = setting(False, may_change=True)
    """Embed the prompts once, before training; that is done whenever the text encoder does not train."""
    gradient_checkpointing: bool = setting(False, may_change=True)
    """Compute activations again in the backward pass: less memory, more time."""
    channels_last: bool = setting(False, may_change=True)
    """Keep the denoiser's images with their channels last in memory, as fast convolutions want them."""
    compile: bool = setting(False, may_change=True)
    """Compile the networks that train: minutes at the start of training, then faster updates."""
    ignore_memory_plan: bool = setting(False, may_change=True)
    """Begin although the plan of memory says that it does not suffice (`dreambooth plan`): it is a prediction."""
    enable_xformers_memory_efficient_attention: bool = setting(False, may_change=True)
    """Accepted for other trainers' command lines: the framework's own attention is as sparing of memory."""
    use_ema: bool = setting(False)
    """Keep an exponential moving average of the trained weights.  The final model and the samples are of the average;
    a checkpoint holds the raw weights, to go on from, and the average beside them in ema.safetensors."""
    ema_decay: float = setting(0.9999, gt=0, lt=1)
    """Decay of the moving average; it is warmed up as min(decay, (1 + update) / (10 + update))."""
    snr_gamma: float | None = setting(None, gt=0)
    """γ of min-SNR weighting (arXiv 2303.09556); 5 is usual. Left out: every timestep weighs the same."""
    noise_offset: float = setting(0.0, ge=0)
    """Amount of noise that is constant over a channel; 0.1 is usual for very dark or bright images."""
    weighting_scheme: WeightingScheme | None = setting(None)
    """Flow matching: how timesteps are drawn or weighed; the family's default is logit_normal for SD3, else none."""
    logit_mean: float = setting(0.0)
    """Mean of logit_normal's normal: above 0 less noise, below 0 more."""
    logit_std: float = setting(1.0, gt=0)
    """Deviation of logit_normal's normal."""
    mode_scale: float = setting(1.29, ge=-1, le=1.75)
    """Scale of weighting scheme mode; beyond these bounds noise levels would lie outside 0 … 1 (2403.03206, eq. 20)."""
    precondition_outputs: bool = setting(False)
    """Flow matching: weigh the error in the clean latent in place of the velocity's, as diffusers' SD3 script does."""
    do_edm_style_training: bool = setting(False)
    """Weigh the error in the clean latent by 1/σ² (EDM, arXiv 2206.00364): for models that predict noise that is the
    loss they have anyway; EDM's own keep theirs."""
    resolution_shift: bool = setting(False)
    """Flow matching: train larger images at more noise, as their sampling begins with more."""
    guidance_scale: float = setting(3.5, ge=0)
    """Strength that a model with an input for it (Flux.1 dev) is told in training."""
    tokenizer_max_length: int | None = setting(None, ge=3)
    """Length in tokens that prompts of CLIP, and of DeepFloyd IF, are padded or cut to; the default is the tokenizer's
    own, 77 for IF."""
    max_sequence_length: int | None = setting(None, ge=3)
    """Length in tokens that T5's prompts are padded or cut to; the family's default is 256 for SD3, 512 for Flux."""
    text_encoder_use_attention_mask: bool | None = setting(None)
    """DeepFloyd IF: let T5 look at a prompt's words alone and not at its padding, as IF's pipelines do; the default."""
    class_labels_conditioning: Literal["timesteps"] | None = setting(None, may_change=True)
    """DeepFloyd IF stage 2: what its denoiser is told of the low-resolution image's noise; timesteps, in any case."""


class OptimizerSettings(Settings):
    """The updates: how many, how large, of how many samples."""

    seed: int = setting(0, ge=0, lt=2**63)
    """Everything random in the run is a function of this number."""
    train_batch_size: int = setting(4, ge=1, may_change=True)
    """Instance samples of one device at a time; each brings its class sample with prior preservation."""
    gradient_accumulation_steps: int = setting(1, ge=1, may_change=True)
    """Micro-batches summed into one update."""
    num_train_epochs: int | None = setting(None, ge=1, may_change=True)
    """Passes over the data, in place of `max_train_steps`."""
    max_train_steps: int | None = setting(None, ge=1, may_change=True)
    """Updates in all; with neither, the family's usual number (400; 500 for LoRA), or the resumed run's own."""
    learning_rate: float | None = setting(None, gt=0)
    """Learning rate; default 5e-6 for full fine-tuning, 1e-4 for LoRA."""
    text_encoder_lr: float | None = setting(None, gt=0)
    """Learning rate of the text encoders; the default is `learning_rate`."""
    scale_lr: bool = setting(False)
    """Multiply the learning rate by batch size, accumulation and devices."""
    lr_scheduler: LRScheduler = setting("constant")
    """Course of the learning rate over the updates."""
    lr_warmup_steps: int = setting(0, ge=0)
    """Updates over which the learning rate rises from 0."""
    lr_num_cycles: int = setting(1, ge=1)
    """Restarts of cosine_with_restarts."""
    lr_power: float = setting(1.0, gt=0)
    """Exponent of polynomial."""
    adam_beta1: float = setting(0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    adam_beta2: float = setting(0.999, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    adam_weight_decay: float = setting(1e-2, ge=0)
    """AdamW's decoupled weight decay."""
    adam_weight_decay_text_encoder: float | None = setting(None, ge=0)
    """AdamW's decoupled weight decay of the text encoders; the default is `adam_weight_decay`."""
    adam_epsilon: float = setting(1e-8, gt=0)
    """AdamW's ε."""
    use_8bit_adam: bool = setting(False, may_change=True)
    """Keep AdamW's moments in 8 bits (bitsandbytes, on a GPU): a quarter of their memory."""
    max_grad_norm: float = setting(1.0, ge=0)
    """Gradients are scaled down to this norm over all trained weights; 0 turns clipping off."""


class ValidationSettings(Settings):
    """Images and losses along the way.  They never disturb the training's random numbers."""

    validation_prompt: str | None = setting(None, may_change=True, may_be_empty=True)
    """Prompt of the images made before update 1, along the way and at the end, from the same seeds each time;
    {instance_prompt} stands for the first concept's words.  The presets have one."""
    validation_negative_prompt: str = setting("", may_change=True, may_be_empty=True)
    """What those images should not show."""
    num_validation_images: int = setting(4, ge=1, may_change=True)
    """Images each time."""
    validation_images: list[str] | None = setting(None, may_change=True)
    """Image files, all of one size, that a model which upscales (DeepFloyd IF stage 2) makes a validation image of
    each."""
    validation_steps: int = setting(100, ge=1, may_change=True)
    """Updates between validations."""
    validation_epochs: int | None = setting(None, ge=1, may_change=True)
    """Epochs between validations, in place of `validation_steps`."""
    validation_num_inference_steps: int = setting(25, ge=1, may_change=True)
    """Denoising steps of a validation image."""
    validation_guidance_scale: float | None = setting(None, ge=0, may_change=True)
    """Classifier-free guidance of validation images; the default is the family's: 7.5 for SD and SDXL."""
    validation_scheduler: Scheduler | None = setting(None, may_change=True)
    """Sampler of validation images; the default is dpmsolver++ where the noise levels admit it, else euler."""
    final_validation_prompt: str | None = setting(None, may_change=True, may_be_empty=True)
    """Prompt of the images after the last update, in place of `validation_prompt`."""
    skip_final_inference: bool = setting(False, may_change=True)
    """Leave the validation after the last update out."""
    validation_data_dir: str | None = setting(None, may_change=True)
    """Folder of photographs held out of training; their loss, at fixed noise and timesteps, is logged."""


class TrainConfig(
    LoraFileSettings,
    OutputSettings,
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

    @classmethod
    def missing(cls, name: str) -> str:
        said = super().missing(name)
        if name != "pretrained_model_name_or_path":
            return said
        return f"{said}; a preset brings one: --config {' | '.join(preset_names())}"

    def contradictions(self) -> Iterator[str]:
        if wrong := place_in("validation_prompt", self.validation_prompt):
            yield wrong
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
        if self.pre_compute_text_embeddings and self.train_text_encoder:
            yield (
                "pre_compute_text_embeddings: given together with train_text_encoder, which changes the embeddings at "
                "every update; give one or the other"
            )
        if self.max_train_steps is not None and self.num_train_epochs is not None:
            yield "num_train_epochs: given together with max_train_steps; give one or the other"
        if self.do_edm_style_training and self.snr_gamma is not None:
            yield "do_edm_style_training: given together with snr_gamma, which weighs otherwise; give one or the other"
        if self.checkpointing_epochs is not None and "checkpointing_steps" in self.model_fields_set:
            yield "checkpointing_epochs: given together with checkpointing_steps; give one or the other"
        if self.validation_epochs is not None and "validation_steps" in self.model_fields_set:
            yield "validation_epochs: given together with validation_steps; give one or the other"

    @property
    def background(self) -> tuple[int, int, int]:
        """`alpha_color` as RGB, 0…255."""
        return _rgb(self.alpha_color)

    def _wrong_concepts(self) -> Iterator[str]:
        example = '"a photo of sks dog", for instance'
        if self.concepts is None:
            yield from self.subjects()[0].contradictions()
            if self.with_prior_preservation and not self.class_prompt:
                yield 'class_prompt: with_prior_preservation needs one; "a photo of dog", for instance'
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
            if concept.class_prompt is not None and not self.with_prior_preservation:
                yield f"concepts.{number}.class_prompt: has no use without with_prior_preservation"
        if self.with_prior_preservation and all(concept.class_prompt is None for concept in self.concepts):
            yield "class_prompt: with_prior_preservation needs one in at least one concept"

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
        names += ["validation_data_dir", *(["class_prompt", "class_data_dir"] if self.with_prior_preservation else [])]
        return [Concept(**{name: getattr(self, name) for name in names})]

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
