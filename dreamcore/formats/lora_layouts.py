"""Layers of the denoisers in the original repositories' names, and the published names (diffusers') of the same layers.

LoRA files name layers either way.  Unlike `ldm.py`, which names the weights of a whole model from its geometry, this
translates one name at a time, for a file of LoRA says nothing of the model around it.

Sources: Stability-AI/generative-models `sgm/modules/diffusionmodules/openaimodel.py`, Stability-AI/sd3.5 `mmditx.py`,
black-forest-labs/flux `src/flux/model.py`, and diffusers' `loaders/single_file_utils.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

PER_BLOCK = 2
"""Residual blocks of a level of every published UNet of this kind, on the way down; one more on the way up."""
Table = Mapping[str, tuple[str, ...]]
"""Layer of a block -> the published layers whose weights lie below each other in its own."""

_RESNET = {
    "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"
}  # fmt: skip
_UNET = {
    "input_blocks.0.0": "conv_in", "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
}  # fmt: skip
_MLP = {"0": "linear_1", "2": "linear_2"}
_LAYERS = {"in_layer": "linear_1", "out_layer": "linear_2"}
_OUTSIDE = {
    "final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear",
    "img_in": "x_embedder", "txt_in": "context_embedder", "x_embedder.proj": "pos_embed.proj",
    **{f"t_embedder.mlp.{a}": f"time_text_embed.timestep_embedder.{b}" for a, b in _MLP.items()},
    **{f"y_embedder.mlp.{a}": f"time_text_embed.text_embedder.{b}" for a, b in _MLP.items()},
    **{f"time_in.{a}": f"time_text_embed.timestep_embedder.{b}" for a, b in _LAYERS.items()},
    **{f"vector_in.{a}": f"time_text_embed.text_embedder.{b}" for a, b in _LAYERS.items()},
    **{f"guidance_in.{a}": f"time_text_embed.guidance_embedder.{b}" for a, b in _LAYERS.items()},
}  # fmt: skip
"""Of transformers, outside their blocks; the first half of no name is in two of them."""
_IMAGE, _WORDS = ("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_DOUBLE: Table = {
    "img_attn.qkv": _IMAGE, "txt_attn.qkv": _WORDS,
    "img_attn.proj": ("attn.to_out.0",), "txt_attn.proj": ("attn.to_add_out",),
    "img_mod.lin": ("norm1.linear",), "txt_mod.lin": ("norm1_context.linear",),
    "img_mlp.0": ("ff.net.0.proj",), "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",), "txt_mlp.2": ("ff_context.net.2",),
}  # fmt: skip
_SINGLE: Table = {"linear1": (*_IMAGE, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",)}
_JOINT: Table = {
    "x_block.attn.qkv": _IMAGE, "context_block.attn.qkv": _WORDS,
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"), "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.attn.proj": ("attn.to_out.0",), "context_block.attn.proj": ("attn.to_add_out",),
    "x_block.mlp.fc1": ("ff.net.0.proj",), "x_block.mlp.fc2": ("ff.net.2",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",), "context_block.mlp.fc2": ("ff_context.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",), "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}  # fmt: skip
SD3 = {"joint_blocks": ("transformer_blocks", _JOINT)}
FLUX = {"double_blocks": ("transformer_blocks", _DOUBLE), "single_blocks": ("single_transformer_blocks", _SINGLE)}
"""Kind of blocks -> what they are called when published, and their layers."""
_FLUX_OUTSIDE = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")
_SD3_OUTSIDE = ("x_embedder", "t_embedder", "y_embedder", "final_layer")
MLP_RATIO = 4
"""Width of Flux's `proj_mlp`, the last part of `linear1`, over the model's."""


class Original(NamedTuple):
    """A layer in an original repository's names.

    Args:
        name: of the layer, `double_blocks.0.img_attn.qkv`.
        published: the layers whose weights lie below each other in its own, by their published names.
    """

    name: str
    published: tuple[str, ...]


def swaps(layer: str, outputs: int, inputs: int) -> bool:
    """Whether scale and shift, the halves of its rows, are the other way round in the published layer.

    So they are where a norm gives these two alone (AdaLayerNormContinuous): the last one, and the words' in SD 3's last
    block.
    """
    return layer == "norm_out.linear" or (layer.endswith(".norm1_context.linear") and outputs == 2 * inputs)


def published_unet(name: str, per_block: int = PER_BLOCK) -> str | None:
    """The published name of a UNet's layer; None: it is none of the original's.

    Args:
        name: as `openaimodel.py` has it.
        per_block: residual blocks of a level, `layers_per_block`.

    >>> published_unet("input_blocks.4.1.transformer_blocks.0.attn1.to_q")
    'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q'
    """
    if name in _UNET:
        return _UNET[name]
    match = re.fullmatch(r"(input|middle|output)_blocks?\.(\d+)\.(?:(\d)\.)?(.+)", name)
    if match is None:
        return None
    way, number, part, rest = match[1], int(match[2]), match[3], match[4]
    if way == "middle":
        rest = rest if part is None else f"{part}.{rest}"
        return _inside(f"mid_block.attentions.{number // 2}", f"mid_block.resnets.{number // 2}", rest, number % 2 == 1)
    level, layer = divmod(number - (way == "input"), per_block + 1)
    here = f"{'down' if way == 'input' else 'up'}_blocks.{level}"
    if (part, rest) == ("0", "op"):
        return f"{here}.downsamplers.0.conv"
    if part in ("1", "2") and rest == "conv":
        return f"{here}.upsamplers.0.conv"
    return _inside(f"{here}.attentions.{layer}", f"{here}.resnets.{layer}", rest, part == "1")


def _inside(attention: str, resnet: str, rest: str, attends: bool) -> str | None:
    if attends:
        return f"{attention}.{rest}"
    return f"{resnet}.{_RESNET[rest]}" if rest in _RESNET else None


def original_unet(layer: str, per_block: int = PER_BLOCK) -> str | None:
    """What the original repository calls a UNet's layer: the inverse of `published_unet`.

    >>> original_unet("up_blocks.1.resnets.2.conv1"), original_unet("up_blocks.0.upsamplers.0.conv")
    ('output_blocks.5.0.in_layers.2', 'output_blocks.2.2.conv')
    """
    if (outside := _inverse(_UNET).get(layer)) is not None:
        return outside
    match = re.fullmatch(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(attentions|resnets|\w+samplers)\.(\d+)\.(.+)", layer)
    if match is None:
        return None
    way, level, kind, number, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    first = (per_block + 1) * level + (way == "down")
    if kind == "downsamplers":
        return f"input_blocks.{first + per_block}.0.op"
    if kind == "upsamplers":  # behind the transformer, which SDXL has in every level that is followed by another
        return f"output_blocks.{first + per_block}.2.conv"
    attends = kind == "attentions"
    rest = rest if attends else _inverse(_RESNET).get(rest, "")
    if not rest:
        return None
    if way is None:
        return f"middle_block.{1 if attends else 2 * number}.{rest}"
    return f"{'input' if way == 'down' else 'output'}_blocks.{first + number}.{int(attends)}.{rest}"


def published_transformer(name: str) -> Original | None:
    """A layer of SD 3's or Flux's transformer; None: it is none of the originals'.

    >>> published_transformer("single_blocks.1.linear2")
    Original(name='single_blocks.1.linear2', published=('single_transformer_blocks.1.proj_out',))
    """
    if name in _OUTSIDE:
        return Original(name, (_OUTSIDE[name],))
    blocks, _, rest = name.partition(".")
    number, _, layer = rest.partition(".")
    called, table = {**SD3, **FLUX}.get(blocks, ("", {}))
    if not number.isdecimal() or layer not in table:
        return None
    return Original(name, tuple(f"{called}.{number}.{part}" for part in table[layer]))


def original_transformer(layer: str, blocks: Mapping[str, tuple[str, Table]]) -> Original | None:
    """The layer in whose weight a published layer's lies.

    Args:
        blocks: `SD3` or `FLUX`.
    """
    outside = _FLUX_OUTSIDE if blocks is FLUX else _SD3_OUTSIDE
    for name, published in _OUTSIDE.items():
        if published == layer and name.startswith(outside):
            return Original(name, (layer,))
    called_here, _, rest = layer.partition(".")
    number, _, part = rest.partition(".")
    for kind, (called, table) in blocks.items():
        if called == called_here and number.isdecimal():
            for name, parts in table.items():
                if part in parts:
                    return Original(f"{kind}.{number}.{name}", tuple(f"{called}.{number}.{each}" for each in parts))
    return Original(layer, (layer,)) if layer == "context_embedder" and blocks is SD3 else None


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}
