"""Which layer a tensor of a LoRA file belongs to, told by its name alone, whatever program gave it.

What is read: diffusers' names of 2023 and since; peft's; ComfyUI's, whose layers have the original repositories' names
or diffusers'; kohya-ss/sd-scripts' and OneTrainer's, which join a layer's name by underlines.  A table of the words
that have an underline themselves undoes that.

Sources: huggingface/diffusers `loaders/lora_conversion_utils.py`, comfyanonymous/ComfyUI `comfy/lora.py`,
kohya-ss/sd-scripts `networks/lora*.py`, Nerogar/OneTrainer `modules/util/convert/lora/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from .lora_layouts import PER_BLOCK, published_transformer, published_unet
from .weights import PREFIX

Kind = str
"""Of a factor: down, up, alpha, magnitude; LyCORIS's own names of others (`lora_kinds`)."""
_KIND = re.compile(
    r"(?P<module>.+?)(?:"
    r"[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight|\.lora_(?P<kohya>down|up)\.weight|"
    r"\.lora_(?P<peft>[AB])(?:(?:\.(?!weight)\w+)?\.weight)?|"
    r"(?:[._]lora(?:_linear_layer)?)?\.(?P<alpha>alpha)|"
    r"\.(?P<length>lora_magnitude_vector)(?:(?:\.(?!weight)\w+)?\.weight)?|"
    r"\.(?P<lycoris>dora_scale|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?))"
)
_KINDS: dict[str, Kind] = {"A": "down", "B": "up", "down": "down", "up": "up", "alpha": "alpha"}

_OTHERS = {
    r"^bundle_emb\.|emb_params|string_to_param": "embeddings beside its LoRA (a bundle), of which only LoRA is read",
    r"\.(lokr_t2|hada_t[12])$": "LoKr or LoHa with a third factor (Tucker), which is not read; without it they are",
    r"(^|\.)b?oft_": "OFT, which is not read; LoRA, DoRA, LoHa and LoKr are",
    r"\.lora_mid\.": "LoRA in three factors (Tucker), which is not read; only LoRA in two is",
    r"\.[ab][12]\.weight$": "GLoRA, which is not read; LoRA, DoRA, LoHa and LoKr are",
    r"\.on_input$": "IA³, which is not read; LoRA, DoRA, LoHa and LoKr are",
    r"\.lora_(B|up)\.bias$": "biases beside its LoRA, which are not read",
    r"\.(diff|diff_b|set_weight|reshape_weight|w_norm|b_norm)$": "whole weights beside its LoRA, which are not read",
}
"""Part of a tensor's name -> what the file holds, and why it is refused."""

_JOINED = {
    "lora_unet_": "denoiser", "lora_transformer_": "denoiser", "lycoris_": "denoiser", "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "lora_te3_": "t5",
}  # fmt: skip
"""What names begin with whose layers are joined by underlines -> part of the model."""
_DOTTED = {
    "base_model.model.": "", "unet.base_model.model.": "denoiser", "transformer.base_model.model.": "denoiser",
    "model.diffusion_model.": "denoiser", "diffusion_model.": "denoiser",
    "text_encoders.clip_l.transformer.": "text_encoder", "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2", "text_encoders.t5xxl.transformer.": "t5",
    "unet.": "unet", "transformer.": "transformer", "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2", "text_encoder_3.": "text_encoder_3",
}  # fmt: skip
"""The same of names whose layers have their points; "": the layer tells the part."""
_UNET = (
    "down_blocks", "mid_block", "up_blocks", "conv_in", "conv_out", "time_embedding", "add_embedding",
)  # fmt: skip
_TRANSFORMER = (
    "transformer_blocks", "single_transformer_blocks", "context_embedder", "x_embedder", "pos_embed", "time_text_embed",
    "norm_out", "proj_out",
)  # fmt: skip
"""First words of the published names of layers."""
_FLUX = ("double_blocks", "single_blocks", "single_transformer_blocks")
"""What only Flux has: its T5 is text_encoder_2, SD 3's text_encoder_3."""
_OLD_CLIP = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""Layers of a text encoder as diffusers named them in 2023."""
_WORDS = (
    "single_transformer_blocks|transformer_blocks|double_blocks|single_blocks|joint_blocks|input_blocks|"
    "output_blocks|middle_block|down_blocks|up_blocks|mid_block|context_block|x_block|img_attn|txt_attn|img_mlp|"
    "txt_mlp|img_mod|txt_mod|img_in|txt_in|time_in|vector_in|guidance_in|in_layers|out_layers|emb_layers|in_layer|"
    "out_layer|skip_connection|final_layer_norm|final_layer|adaLN_modulation|time_embedding|add_embedding|"
    "time_embed|label_emb|time_emb_proj|conv_shortcut|conv_in|conv_out|context_embedder|x_embedder|y_embedder|"
    "t_embedder|pos_embed|time_text_embed|timestep_embedder|text_embedder|guidance_embedder|linear_1|linear_2|"
    "norm_out|norm1_context|ff_context|add_q_proj|add_k_proj|add_v_proj|to_add_out|to_out|to_q|to_k|to_v|proj_in|"
    "proj_out|proj_mlp|q_proj|k_proj|v_proj|out_proj|self_attn|text_model|text_projection|layer_norm1|layer_norm2|"
    "wi_0|wi_1"
)
"""Words with underlines in names of layers; one that begins with another stands before it."""
_SPLIT = re.compile(rf"(?:^|_)({_WORDS}|[^_]+)(?=_|$)")


class Place(NamedTuple):
    """Where a module's factors belong.

    Args:
        layers: by published name; several, whose weights lie below each other in the one that the file names.
        original: whether the name was an original repository's.
    """

    component: str
    layers: tuple[str, ...]
    original: bool = False


def refuse_other_kinds(file: Path, names: Iterable[str]) -> None:
    """Raise ConfigError where names are those of adapters of other kinds than are read, saying what they are."""
    names = list(names)
    for part, kind in _OTHERS.items():
        name = next((name for name in names if re.search(part, name)), None)
        if name is not None:
            raise ConfigError(f"lora: {file}: {name}: holds {kind}")


def module_and_kind(name: str) -> tuple[str, Kind] | None:
    """A tensor's name without its ending, and which factor it is; None: it is named as none.

    >>> module_and_kind("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight")
    ('unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q', 'down')
    """
    match = _KIND.fullmatch(name)
    if match is None:
        return None
    if match["length"]:
        return match["module"], "magnitude"
    if match["lycoris"]:
        return match["module"], match["lycoris"]
    return match["module"], _KINDS[match["old"] or match["kohya"] or match["peft"] or match["alpha"]]


def is_flux(names: Iterable[str]) -> bool:
    """Whether names of a file are those of a LoRA for Flux."""
    return any(part in name for name in names for part in _FLUX)


def place(module: str, *, flux: bool, per_block: int = PER_BLOCK) -> Place | None:
    """Where a module's factors belong; None: its name is that of no layer which is known here.

    Args:
        module: a tensor's name without its ending.
        flux: whether the file is for Flux (`is_flux`).
        per_block: `layers_per_block` of the UNet, where its layers have the original repository's names.

    >>> place("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", flux=False).layers
    ('mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0',)
    >>> place("lora_unet_double_blocks_0_txt_attn_qkv", flux=True).layers[0]
    'transformer_blocks.0.attn.add_q_proj'
    """
    for beginning, part in _JOINED.items():
        if module.startswith(beginning):
            return _of(part, dotted(module.removeprefix(beginning)), flux, per_block)
    for beginning, part in _DOTTED.items():
        if module.startswith(beginning):
            rest = module.removeprefix(beginning)
            return _of(part, rest, flux, per_block) if part else place(rest, flux=flux, per_block=per_block)
    if module.startswith((PREFIX, "encoder.layers.")):
        return _of("text_encoder", module, flux, per_block)
    return _of("denoiser", module, flux, per_block)


def dotted(joined: str) -> str:
    """A layer's name whose parts are joined by underlines, with its points.

    >>> dotted("single_transformer_blocks_3_attn_to_q")
    'single_transformer_blocks.3.attn.to_q'
    """
    return ".".join(_SPLIT.findall(joined))


def _of(part: str, layer: str, flux: bool, per_block: int) -> Place | None:
    if ".processor" in layer:  # as diffusers named layers of attention in 2023, one without its number
        layer = layer.replace(".processor", "")
        layer = f"{layer}.0" if layer.endswith(".to_out") else layer
    if part == "t5":
        return Place("text_encoder_2" if flux else "text_encoder_3", (layer,))
    if part.startswith("text_encoder"):
        return Place(part, (_clip(layer),))
    if part == "denoiser":
        if (unet := published_unet(layer, per_block)) is not None:
            return Place("unet", (unet,), original=True)
        if (original := published_transformer(layer)) is not None:
            return Place("transformer", original.published, original=True)
        first = layer.partition(".")[0]
        if first in _UNET or first in _TRANSFORMER:
            return _of("unet" if first in _UNET else "transformer", layer, flux, per_block)
        return None
    return Place(part, (layer,))


def _clip(layer: str) -> str:
    stem, _, last = layer.rpartition(".")
    layer = f"{stem}.{_OLD_CLIP[last]}" if last in _OLD_CLIP else layer
    return f"{PREFIX}{layer}" if layer.startswith("encoder.layers.") else layer
