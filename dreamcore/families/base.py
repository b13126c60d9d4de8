"""The description of a model family: data, and small NumPy functions, that every backend interprets alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .encoders import CLIP, T5, EncoderClass
from .packing import pack, stacked

if TYPE_CHECKING:
    from ..config.common import WeightingScheme
    from ..data import CropRecord


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder's part in the conditioning."""

    network: str
    """Sub-folder of the network."""
    tokenizer: str
    """Sub-folder of its tokenizer."""
    group: int | None = 0
    """Words of the encoders of one group lie side by side (their widths add up), groups one after the other (their
    tokens do), each filled up with zeros to the denoiser's width where there are several; None: none of its words."""
    layer: int | None = None
    """Which hidden state its words are, the embeddings being the 0th; None is the last, after the final norm."""
    pooled: str | None = None
    """Which of its outputs is its pooled embedding; those of several encoders lie side by side."""
    lora_layers: tuple[str, ...] = CLIP.lora_layers
    """Endings of the names of the layers that get LoRA factors; none: this encoder never trains."""
    length: int | None = None
    """Tokens that prompts are padded to, unless the user says otherwise; the default is the tokenizer's own."""
    length_setting: Literal["tokenizer_max_length", "max_sequence_length"] = "tokenizer_max_length"
    """How the user says otherwise: the second is of a T5 beside CLIP, and of language models."""
    sees_padding: bool | None = None
    """Whether its words look at padding too, unless the user says otherwise; None: as its own configuration says."""
    optional: bool = False
    """Zeros can stand for its words."""
    elsewhere: str | None = None
    """A repository that has it, where the model's folder may be without."""
    fits_fp16: bool = True
    """Whether its activations stay within fp16's range; otherwise it runs in float32 where the others run in fp16."""

    template: str = "{}"
    """The text that a prompt stands in, at {}."""
    chat: Mapping[str, Any] | None = None
    """Options of the tokenizer's own chat template, in which a prompt is what the user says; None: no such template."""
    system: str | None = None
    """What the system says before."""
    bare_negative: bool = False
    """Whether negative prompts, and the empty one, stand in no template."""
    without: str = ""
    """What is taken out of prompts, as it would stand for an image."""
    lowers: bool = False
    """Whether prompts are read in lower case, without blanks around them."""
    keeps_first: int = 0
    """Of the tokens of a template longer than words may be, how many are kept at the beginning..."""
    drops: Callable[[int], int] | None = None
    """...and how many after those are left out of its words, of the number of the tokens before {}; None: none."""
    ending: str = ""
    """What follows the template, of however long prompts, which are cut before it."""
    layers: tuple[int, ...] = ()
    """Hidden states that lie side by side as its words, in place of `layer`."""
    stacks: bool = False
    """Whether its words are all hidden states but the embeddings, one below the other, beside those of the others:
    `layer_embeds`."""
    pads_right: bool = False
    """Whether padding follows the words whatever side the tokenizer's own settings say."""
    trims: bool = False
    """Whether words end with the prompt: the denoiser sees no padding but what a batch's longest asks for."""

    kind: EncoderClass = CLIP
    """What its class says of it."""

    def of_class(self, kind: EncoderClass) -> TextEncoder:
        """With the network that a model's folder names in the place of the family's usual one."""
        return replace(self, kind=kind, lora_layers=kind.lora_layers if self.lora_layers else ())

    def unused(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Beginnings of the published names of weights that its words do not depend on: they do not train.

        Args:
            config: the network's own configuration.
        """
        if self.pooled is not None:
            return ()
        if self.layer is None:
            return self.kind.beside
        layers = int(config.get("num_hidden_layers") or 12)  # as transformers has it
        last = range(layers + 1 + self.layer, layers)
        return (*(f"{self.kind.layers}.{i}." for i in last), *self.kind.after, *self.kind.beside)


def short_names(encoders: Sequence[TextEncoder]) -> tuple[str, ...]:
    """What other programs call a model's text encoders: clip_l, clip_g, t5; others as their folders are called."""
    names, clips = list[str](), iter(("clip_l", "clip_g"))
    for encoder in encoders:
        names.append("t5" if encoder.kind is T5 else next(clips, "") if encoder.kind is CLIP else "")
    return tuple(name or encoder.network for name, encoder in zip(names, encoders, strict=True))


@dataclass(frozen=True)
class Rows:
    """What the extra inputs of a micro-batch are made from."""

    records: Sequence[CropRecord]
    """[B] what each row shows of its photograph."""
    latent: tuple[int, int]
    """(h, w) of the latents."""
    tokens: int
    """Tokens of the words."""
    guidance: float | None
    """Strength for models that are told it; None for others."""
    reference_time: float | None = None
    """First coordinate of the positions of a reference image's tokens, which follow the others; None without."""


Extra = Callable[[Rows], NDArray[Any] | list[Any] | None]
"""An array; whole numbers stay whole, others become float32.  A list goes to the denoiser as it is."""
Mask = Callable[[NDArray[np.int64], int, int], NDArray[Any]]
"""[B, n] or [B] of the number of each row's words [B], the tokens of the words with their padding, and those of the
image."""


def words_mask(lengths: NDArray[np.int64], tokens: int, _: int = 0) -> NDArray[np.int64]:
    """[B, tokens] 1 for words, 0 for padding."""
    return (np.arange(tokens) < lengths[:, None]).astype(np.int64)


@dataclass(frozen=True)
class Family:
    """What a backend must know of a family; names are those of the published folders, arguments and layers."""

    name: str
    pipelines: tuple[str, ...]
    """Class names in model_index.json."""
    backends: tuple[str, ...]
    """Who runs it; backends that other packages bring decide for themselves."""
    absent: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """A backend that does not -> why not."""
    denoiser: str
    """Sub-folder of the network that is trained."""
    inputs: Mapping[str, str]
    """The denoiser's argument (or ARGUMENT.KEY) -> what it gets: x, t, prompt_embeds, pooled_prompt_embeds,
    layer_embeds, unpadded (a list of each row's words), or the name of an extra or of a mask."""
    text_encoders: tuple[TextEncoder, ...]
    lora_layers: tuple[str, ...]
    """Endings of the denoiser's layer names that get LoRA factors unless the user says otherwise."""
    extra: Mapping[str, Extra] = field(default_factory=dict)
    """Further inputs, by name; None where a model does without."""
    masks: Mapping[str, Mask] = field(default_factory=dict)
    """Which tokens are words and which are padding, by name."""
    lists: bool = False
    """Whether the denoiser receives latents, as films of one frame, as a list of one sample each, and answers so."""
    parts_words: int = 0
    """How many hidden states, if any, words are parted into: [B, tokens, states, width] in place of side by side."""
    patch: int = 1
    """Side of the squares of latents that the denoiser receives as one token each: `packing.pack`."""
    stacks_squares: bool = False
    """Whether its pipeline takes those squares in their places, their latents stacked as channels, not as tokens..."""
    sees_stacked: bool = False
    """...and its denoiser too."""
    time_scale: float = 1.0
    """Of timesteps as the denoiser receives them."""
    time_falls: bool = False
    """Whether time is 0 for noise and 1 for images to the denoiser of a flow, not the other way round..."""
    output_sign: float = 1.0
    """...and −1 where it answers with the way from noise to image."""
    shift: float | None = None
    """Of a flow's noise levels in training, where another than its schedule's..."""
    built_with: Mapping[str, Any] = field(default_factory=dict)
    """...and fields of the denoiser's configuration that are set when its network is built."""
    sample_size: int = 128
    """Side of a latent where the denoiser's configuration does not say."""
    weighting_scheme: WeightingScheme = "none"
    """Of timesteps in flow matching, unless the user says otherwise (`diffusion.FlowSettings`)."""
    updates: int = 400
    """Usual number of updates of full fine-tuning: diffusers' README of DreamBooth, and the presets `sd15-full` and
    `sd21-full`."""
    lora_updates: int = 500
    """Usual number of updates of LoRA: diffusers' READMEs of LoRA, SDXL, SD 3 and Flux, and the presets."""
    guidance_scale: float = 7.5
    """Of images, unless the user says otherwise."""
    unguided: float = 1.0
    """Up to which strength images are not guided."""
    classifier_free: bool = True
    """Whether images are guided by a second answer, without or to negative words; otherwise by an input."""
    zeroes_empty: bool = False
    """Whether zeros stand for empty words, unless model_index.json says so itself (force_zeros_for_empty_prompt)."""
    vae: str | None = "vae"
    """Sub-folder of the autoencoder; None: images are their own latents."""
    statistics_epsilon: float | None = None
    """Added to the variance in the autoencoder's statistics, where another number than its configuration's."""
    usual_scaling: float | None = None
    """`scaling_factor` of the family's autoencoders whose configurations are older than this field."""
    reference_time: float | None = None
    """First coordinate of the positions of a reference image's tokens, which the denoiser may see after those of the
    noisy one (Kontext, 2506.15742, section 3); None where it sees none."""
    upscales: bool = False
    """Whether the denoiser sees a low-resolution image beside the noisy one: in training the noisy one itself."""
    pipeline: Mapping[str, str] = field(
        default_factory=lambda: {n: n for n in ("prompt_embeds", "pooled_prompt_embeds")}
    )
    """The pipeline's argument -> what it gets of the words; those of the negative prompt begin with `negative_`."""
    pipeline_options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline."""
    guidance_argument: str = "guidance_scale"
    """What its pipeline calls the strength of guidance by negative words."""

    def seen(self, latents: NDArray[Any]) -> NDArray[Any]:
        """[B, C, h, w] as the denoiser receives them."""
        return (stacked if self.sees_stacked else pack)(latents, self.patch)

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The denoiser's keyword arguments, from what they get by name, arrays or tensors of any library."""
        found: dict[str, Any] = {}
        for argument, name in self.inputs.items():
            if name in values:
                outer, _, inner = argument.partition(".")
                if inner:
                    found.setdefault(outer, {})[inner] = values[name]
                else:
                    found[outer] = values[name]
        return found


@dataclass(frozen=True)
class FamilyInputs:
    """Makes what a family's denoiser receives besides timesteps and words."""

    family: Family
    tokens: int = 0
    """Of the words."""
    guidance: float | None = None
    """Strength for models that are told it."""
    area: int = 1
    """Latents of a plane that are one token."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the extra inputs that this model takes."""
        return tuple(self.extra(list, (self.family.patch, self.family.patch)))

    def extra(
        self, records: Callable[[], Sequence[CropRecord]], latent: tuple[int, int], *, refers: bool = False
    ) -> dict[str, NDArray[Any] | list[Any]]:
        """The extra inputs of a micro-batch, whose rows have reference images or not; `records` is asked only where
        there are any."""
        if not self.family.extra:
            return {}
        rows = Rows(records(), latent, self.tokens, self.guidance, self.family.reference_time if refers else None)
        made = {name: make(rows) for name, make in self.family.extra.items()}
        return {name: _plain(value) for name, value in made.items() if value is not None}


def _plain(value: NDArray[Any] | list[Any]) -> NDArray[Any] | list[Any]:
    return value if isinstance(value, list) or value.dtype == np.int64 else np.asarray(value, np.float32)
