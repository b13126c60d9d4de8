"""What is in a file that may be a whole model: which one, told by its names and shapes, and each part's tensors.

Sources: the names of the original repositories (see `ldm`, `sd3`, `flux`), and what ComfyUI's
`comfy/supported_models.py` reads and writes for text encoders and autoencoders beside SD 3 and Flux.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .ldm import CLIP, OPEN_CLIP, SCHEDULE, UNET, VAE
from .tensors import Entry
from .weights import IGNORED, problem_in_words

Kind = Literal["unet", "vae", "clip", "open_clip", "t5", "sd3", "flux"]


@dataclass(frozen=True)
class Part:
    """A network of a model in one file.

    Args:
        component: its folder in diffusers' layout.
        prefixes: what its names may begin with in the file; the first is written.
        projects: of a text encoder, whether its projection counts.
        optional: whether a model can do without.
    """

    component: str
    kind: Kind
    prefixes: tuple[str, ...]
    projects: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Layout:
    """A family's single file: what it is called, its pipeline's class, and its parts."""

    name: str
    pipeline: str
    parts: tuple[Part, ...]

    @property
    def denoiser(self) -> Part:
        return self.parts[0]


_UNET, _VAE = Part("unet", "unet", (UNET,)), Part("vae", "vae", (VAE, "vae."))
_CLIP_L = "text_encoders.clip_l.transformer."
_T5 = ("text_encoders.t5xxl.transformer.",)
SD1 = Layout(
    "Stable Diffusion 1", "StableDiffusionPipeline", (_UNET, _VAE, Part("text_encoder", "clip", (CLIP,)))
)  # fmt: skip
SD2 = Layout(
    "Stable Diffusion 2",
    "StableDiffusionPipeline",
    (_UNET, _VAE, Part("text_encoder", "open_clip", (OPEN_CLIP, "conditioner.embedders.0.model."))),
)
SDXL = Layout(
    "Stable Diffusion XL",
    "StableDiffusionXLPipeline",
    (
        _UNET,
        _VAE,
        Part("text_encoder", "clip", ("conditioner.embedders.0.transformer.",)),
        Part("text_encoder_2", "open_clip", ("conditioner.embedders.1.model.",), projects=True),
    ),
)
SD3 = Layout(
    "Stable Diffusion 3",
    "StableDiffusion3Pipeline",
    (
        Part("transformer", "sd3", (UNET, "")),
        _VAE,
        Part("text_encoder", "clip", (_CLIP_L,), projects=True),
        Part("text_encoder_2", "clip", ("text_encoders.clip_g.transformer.",), projects=True),
        Part("text_encoder_3", "t5", _T5, optional=True),
    ),
)
FLUX = Layout(
    "Flux",
    "FluxPipeline",
    (
        Part("transformer", "flux", (UNET, "")),
        Part("vae", "vae", ("vae.", VAE)),
        Part("text_encoder", "clip", (_CLIP_L,)),
        Part("text_encoder_2", "t5", _T5),
    ),
)
AUTOENCODER = Layout("an autoencoder", "", (Part("vae", "vae", ("", VAE)),))
"""One alone, which is no model."""
LAYOUTS = (SD1, SD2, SDXL, SD3, FLUX)

FACTS = ("v_pred", "ztsnr", "edm_mean", "edm_std")
"""Names that say how a model is used: it predicts v; its last noise level has no signal left; its latents' mean and
standard deviation (Playground 2.5)."""
_NO_WEIGHTS = re.compile(
    rf"(model\.)?({SCHEDULE})|model_ema\..+|denoiser\.sigmas|global_step|logit_scale|(first_stage_model|vae)\.(loss|"
    r"model_ema)\..+|(cond_stage_model|conditioner\.embedders\.\d|text_encoders\.\w+)(\.transformer|\.model)?"
    r"\.(logit_scale|spiece_model|attn_mask)"
)
"""What a file holds beside its weights: averages of training, losses, tables of the noise schedule, the scale of CLIP's
answers."""
TIED = ("encoder.embed_tokens.weight", "shared.weight")
"""The two names of T5's table, of which files have one or both; the second is kept."""
_LORA = re.compile(
    r"lora_(unet|te\d?|transformer)_|[._]lora[._]|\.lora_[AB]\.|lora_(up|down)|\.(hada|lokr)_w|dora_scale"
)
_QUANTIZED = re.compile(
    r"\.(absmax|quant_map|quant_state\.\S+|scale_weight|weight_scale|comfy_quant|qweight|qzeros)$|scaled_fp8$"
)
_STRANGERS = (
    (_LORA, "holds a LoRA, no model", "give it with --lora or --init_lora, and its model here"),
    (_QUANTIZED, "holds quantized weights, which are not read", "give the file of the same model in fp16 or bf16"),
    (re.compile(r"^control_model\.|^controlnet_"), "holds a ControlNet, no model", "give a model"),
    (re.compile(r"distilled_guidance_layer\.|single_stream_modulation\."), "holds a relative of Flux", None),
    (re.compile(r"edm_vpred\."), "holds a model of continuous v-prediction", None),
    (re.compile(r"^embedder\.model\."), "holds a model that images are given to (unCLIP)", None),
    (re.compile(r"^(emb_params|string_to_param.*|clip_[lg])$"), "holds a textual inversion", "give a model"),
)
"""What names of a file's contain -> what it is, and what to do instead."""
_NETWORKS = (
    (
        re.compile(r"(down_blocks|mid_block|transformer_blocks|encoder\.down_blocks)\."),
        "holds one network of a model in diffusers' layout",
        "give the folder that it comes from",
    ),
    (re.compile(r"(text_model|encoder\.block)\."), "holds a text encoder alone", "give a model"),
)
"""As `_STRANGERS`, of what names begin with, in a file that has no denoiser."""


def recognized(tensors: Mapping[str, Entry], what: str) -> Layout:
    """Which family's single file this is, by names and shapes alone; `AUTOENCODER` for one alone.

    Raises:
        ConfigError: none; says what it is instead, where that is known.
    """
    for pattern, is_, instead in _STRANGERS:
        _refuse(next(filter(pattern.search, tensors), None), is_, instead, what)
    for prefix in (UNET, ""):
        if f"{prefix}joint_blocks.0.x_block.attn.qkv.weight" in tensors:
            return SD3
        if f"{prefix}double_blocks.0.img_attn.qkv.weight" in tensors:
            return FLUX
    if f"{UNET}input_blocks.0.0.weight" in tensors:
        return _with_unet(tensors, what)
    if any(f"{prefix}encoder.down.0.block.0.conv1.weight" in tensors for prefix in ("", VAE)):
        return AUTOENCODER
    for pattern, is_, instead in _NETWORKS:
        _refuse(next(filter(pattern.match, tensors), None), is_, instead, what)
    raise ConfigError(
        f"{what}: is no model that is known: it has neither a UNet ({UNET}input_blocks...) nor the transformer of "
        f"Stable Diffusion 3 (joint_blocks...) or Flux (double_blocks...); its first name: {min(tensors, default='')!r}"
    )


def _refuse(found: str | None, is_: str, instead: str | None, what: str) -> None:
    if found is not None:
        raise ConfigError(f"{what}: {is_} ({found}); {instead or 'which is not supported'}")


def _with_unet(tensors: Mapping[str, Entry], what: str) -> Layout:
    first = tensors[f"{UNET}input_blocks.0.0.weight"].shape
    if len(first) == 4 and first[1] in (5, 8, 9):
        kind = {5: "depth maps", 8: "edits by instruction (pix2pix)", 9: "inpainting"}[first[1]]
        raise ConfigError(f"{what}: its UNet takes {first[1]} channels: a model for {kind}, which is not supported")
    labelled = f"{UNET}label_emb.0.0.weight" in tensors
    if labelled and any(name.startswith("conditioner.embedders.0.model.") for name in tensors):
        raise ConfigError(f"{what}: is the refiner of Stable Diffusion XL, which is not supported; give the base model")
    if labelled:
        return SDXL
    beginnings = SD2.parts[2].prefixes
    if any(name.startswith(beginnings) for name in tensors):
        return SD2
    linear = tensors.get(f"{UNET}middle_block.1.proj_in.weight")
    alone = not any(name.startswith(CLIP) for name in tensors)
    return SD2 if alone and linear is not None and len(linear.shape) == 2 else SD1


@dataclass(frozen=True)
class Contents:
    """A file's tensors.

    Args:
        parts: by component, under the file's names without what they begin with there, and CLIP's under today's.
        facts: those of `FACTS` that are there.
        left_out: names that have no place in a folder, sorted.
    """

    layout: Layout
    parts: dict[str, dict[str, Entry]]
    facts: dict[str, Entry]
    left_out: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Components without which it is no model."""
        return tuple(p.component for p in self.layout.parts if not p.optional and p.component not in self.parts)


def contents(tensors: Mapping[str, Entry], layout: Layout, what: str) -> Contents:
    """A file's tensors by part, every one accounted for.

    Raises:
        ConfigError: a tensor that is of no part, and not known to be superfluous; or two of one name.
    """
    parts: dict[str, dict[str, Entry]] = {}
    facts, left_out, strange = {}, [], []
    for name, entry in tensors.items():
        owner = _owner(name, layout)
        if name in FACTS:
            facts[name] = entry
        elif _NO_WEIGHTS.fullmatch(name):
            left_out.append(name)
        elif owner is None:
            strange.append(name)
        else:
            part, prefix = owner
            if (short := _current(name.removeprefix(prefix), part)) in parts.setdefault(part.component, {}):
                raise ConfigError(f"{what}: {name}: is there under two names")
            if _superfluous(short, part, tensors, prefix):
                left_out.append(name)
            else:
                parts[part.component][short] = entry
    for tensors_of in parts.values():
        if TIED[0] in tensors_of and TIED[1] not in tensors_of:
            tensors_of[TIED[1]] = tensors_of.pop(TIED[0])
    if problem := problem_in_words({"unexpected keys": strange}):
        raise ConfigError(f"{what}: {problem}; expected {layout.name}'s alone")
    return Contents(layout, {k: v for k, v in parts.items() if v}, facts, tuple(sorted(left_out)))


def _owner(name: str, layout: Layout) -> tuple[Part, str] | None:
    found = [(part, prefix) for part in layout.parts for prefix in part.prefixes if name.startswith(prefix)]
    return max(found, key=lambda owner: len(owner[1]), default=None)


def _current(short: str, part: Part) -> str:
    """CLIP's names of 2022 lack what those of today begin with."""
    old = part.kind == "clip" and short.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return f"text_model.{short}" if old else short


def _superfluous(short: str, part: Part, tensors: Iterable[str], prefix: str) -> bool:
    """Whether a part's tensor has no place in the published network: Stable Diffusion 2's words are those of the layer
    before the last, which is left out there, and of the projections only those that count are."""
    if part.kind in ("clip", "open_clip"):
        projection = short in ("text_projection", "text_projection.weight") and not part.projects
        last = part.kind == "open_clip" and not part.projects and short.startswith("transformer.resblocks.23.")
        return projection or last or short.endswith(IGNORED)
    return part.kind == "t5" and short == TIED[0] and prefix + TIED[1] in tensors
