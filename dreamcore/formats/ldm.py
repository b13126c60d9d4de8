"""Names of Stable Diffusion 1, 2 and XL as the original repositories give them, in one file, and the published ones.

Tables (`renaming`) are computed from a network's geometry.  Three kinds of weights differ in more than their names:
CLIP's queries, keys and values are one array in OpenCLIP, whose projection is transposed, and the autoencoder's
attention is a convolution of size 1 in LDM and a Linear layer in diffusers.

Sources: CompVis/stable-diffusion `ldm/modules/diffusionmodules/{openaimodel,model}.py` and `ldm/modules/attention.py`,
the same of Stability-AI/generative-models, OpenCLIP's `transformer.py`, and diffusers' `loaders/single_file_utils.py`,
against which tests compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from .renaming import Convolution, Names, Transposed, original_entries, published_entries
from .tensors import Entry
from .weights import Arrays

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
"""What names of the parts begin with in one file; CLIP is SD 1's text encoder, OpenCLIP that of SD 2."""
SCHEDULE = (
    r"(sqrt_)?(one_minus_|recip_|recipm1_|log_)?(one_minus_)?alphas_cumprod(_prev)?|betas|logvar"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|lvlb_weights|scale_factor"
)
"""Pattern of the names of the noise schedule's tables, which are computed anew."""
BOTH = ("weight", "bias")
_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}
_UNET_RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2",
}  # fmt: skip
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OPEN_CLIP_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


@dataclass(frozen=True)
class UNetGeometry:
    """A UNet, as far as its names depend on it.

    Args:
        channels: of each level, the finest first (LDM: model_channels · channel_mult, which begins with 1).
        layers: residual blocks of a level on the way down; one more on the way up (LDM: num_res_blocks).
        attention: whether a level has transformers (LDM: attention_resolutions).
        depth: blocks of a transformer; of each level, where they differ (the middle has the last).
        labelled: whether it is told sizes and pooled words besides, as SD XL is.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    attention: tuple[bool, ...] = (True, True, True, False)
    depth: int | tuple[int, ...] = 1
    labelled: bool = False

    def depth_at(self, level: int) -> int:
        """Blocks of a transformer of a level; −1 is the middle."""
        return self.depth if isinstance(self.depth, int) else self.depth[level]


@dataclass(frozen=True)
class VAEGeometry:
    """An autoencoder, as far as its names depend on it: channels of each level (ch · ch_mult), num_res_blocks,
    and whether latents pass a convolution of size 1 (quant_conv), which SD 3 and Flux leave out."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    quantized: bool = True


def depths(of_levels: Sequence[int], attention: Sequence[bool]) -> int | tuple[int, ...]:
    """Blocks of the transformers of each level as `UNetGeometry` has them: one number where they are all alike, and 1
    where there are none, but for the last level's, which is the middle's too."""
    told = [d if there else 1 for d, there in zip(of_levels[:-1], attention, strict=False)] + [of_levels[-1]]
    there = {depth for depth, attends in zip(told, attention, strict=True) if attends}
    return told[-1] if there <= {told[-1]} else tuple(told)


def unet_names(geometry: UNetGeometry) -> Names:
    """The UNet's names, LDM's without `UNET`."""
    modules = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    if geometry.labelled:
        modules |= {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
    names = _both(modules)
    names |= _resnet("middle_block.0", "mid_block.resnets.0", _UNET_RESNET, False)
    names |= _transformer("middle_block.1", "mid_block.attentions.0", geometry.depth_at(-1))
    names |= _resnet("middle_block.2", "mid_block.resnets.1", _UNET_RESNET, False)
    return names | _unet_down(geometry) | _unet_up(geometry)


def _unet_down(geometry: UNetGeometry) -> Names:
    names: Names = {}
    width, block = geometry.channels[0], 1
    for level, channels in enumerate(geometry.channels):
        here = f"down_blocks.{level}"
        for layer in range(geometry.layers):
            names |= _resnet(f"input_blocks.{block}.0", f"{here}.resnets.{layer}", _UNET_RESNET, width != channels)
            if geometry.attention[level]:
                depth = geometry.depth_at(level)
                names |= _transformer(f"input_blocks.{block}.1", f"{here}.attentions.{layer}", depth)
            width, block = channels, block + 1
        if level < len(geometry.channels) - 1:
            names |= _both({f"input_blocks.{block}.0.op": f"{here}.downsamplers.0.conv"})
            block += 1
    return names


def _unet_up(geometry: UNetGeometry) -> Names:
    names: Names = {}
    skips = list(_skipped_widths(geometry))
    width, block, levels = geometry.channels[-1], 0, len(geometry.channels)
    for level in reversed(range(levels)):
        channels, here = geometry.channels[level], f"up_blocks.{levels - 1 - level}"
        for layer in range(geometry.layers + 1):
            there = f"output_blocks.{block}"
            names |= _resnet(f"{there}.0", f"{here}.resnets.{layer}", _UNET_RESNET, width + skips.pop() != channels)
            if geometry.attention[level]:
                names |= _transformer(f"{there}.1", f"{here}.attentions.{layer}", geometry.depth_at(level))
            width, block = channels, block + 1
        if level > 0:
            names |= _both({f"{there}.{1 + geometry.attention[level]}.conv": f"{here}.upsamplers.0.conv"})
    return names


def _skipped_widths(geometry: UNetGeometry) -> Iterator[int]:
    """Channels that the way down hands over to the way up, in the order in which they are made."""
    yield geometry.channels[0]
    for level, channels in enumerate(geometry.channels):
        yield from [channels] * (geometry.layers + (level < len(geometry.channels) - 1))


def vae_names(geometry: VAEGeometry) -> Names:
    """The autoencoder's names, LDM's without `VAE`."""
    names = _both({name: name for name in ("quant_conv", "post_quant_conv")}) if geometry.quantized else {}
    for half in ("encoder", "decoder"):
        ends = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
        names |= _both({f"{half}.{old}": f"{half}.{new}" for old, new in ends.items()})
        for number in (0, 1):
            old, new = f"{half}.mid.block_{number + 1}", f"{half}.mid_block.resnets.{number}"
            names |= _resnet(old, new, _RESNET, False, "nin_shortcut")
        old, new = f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0"
        names |= _both({f"{old}.{a}": f"{new}.{b}" for a, b in _VAE_ATTENTION.items()})
        for part in ("q", "k", "v", "proj_out"):
            names[f"{old}.{part}.weight"] = Convolution(names[f"{old}.{part}.weight"])
    levels = len(geometry.channels)
    for level, (before, channels) in enumerate(pairwise((geometry.channels[0], *geometry.channels))):
        old, new = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        names |= _vae_level(old, new, geometry.layers, before != channels)
        if level < levels - 1:
            names |= _both({f"{old}.downsample.conv": f"{new}.downsamplers.0.conv"})
    for level, (channels, before) in enumerate(pairwise((*geometry.channels, geometry.channels[-1]))):
        old, new = f"decoder.up.{level}", f"decoder.up_blocks.{levels - 1 - level}"
        names |= _vae_level(old, new, geometry.layers + 1, before != channels)
        if level > 0:
            names |= _both({f"{old}.upsample.conv": f"{new}.upsamplers.0.conv"})
    return names


def _vae_level(old: str, new: str, layers: int, widens: bool) -> Names:
    names: Names = {}
    for layer in range(layers):
        shortcut = widens and layer == 0
        names |= _resnet(f"{old}.block.{layer}", f"{new}.resnets.{layer}", _RESNET, shortcut, "nin_shortcut")
    return names


def text_names(layers: int, open_clip: bool, projects: bool = False) -> Names:
    """The text encoder's names, LDM's without `CLIP` or `OPEN_CLIP`.

    Args:
        projects: whether it has a projection, as SD XL's second has.
    """
    if not open_clip:
        return {name: (name,) for published in text_names(layers, True, projects).values() for name in published}
    names: Names = {
        "token_embedding.weight": ("text_model.embeddings.token_embedding.weight",),
        "positional_embedding": ("text_model.embeddings.position_embedding.weight",),
        **_both({"ln_final": "text_model.final_layer_norm"}),
    }
    if projects:
        names["text_projection"] = Transposed(("text_projection.weight",))
    for layer in range(layers):
        old, new = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
        names |= _both({f"{old}.{a}": f"{new}.{b}" for a, b in _OPEN_CLIP_BLOCK.items()})
        for kind in BOTH:
            names[f"{old}.attn.in_proj_{kind}"] = tuple(f"{new}.self_attn.{x}_proj.{kind}" for x in "qkv")
    return names


def _both(modules: Mapping[str, str]) -> Names:
    return {f"{old}.{kind}": (f"{new}.{kind}",) for old, new in modules.items() for kind in BOTH}


def _resnet(old: str, new: str, modules: Mapping[str, str], shortcut: bool, called: str = "skip_connection") -> Names:
    modules = {**modules, called: "conv_shortcut"} if shortcut else modules
    return _both({f"{old}.{a}": f"{new}.{b}" for a, b in modules.items()})


def _transformer(old: str, new: str, depth: int) -> Names:
    modules = ["norm", "proj_in", "proj_out"]
    projections = []
    for block in (f"transformer_blocks.{number}" for number in range(depth)):
        modules += [f"{block}.{part}" for part in ("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2")]
        modules += [f"{block}.attn{number}.to_out.0" for number in (1, 2)]
        projections += [f"{block}.attn{number}.to_{x}.weight" for number in (1, 2) for x in "qkv"]
    names = _both({f"{old}.{module}": f"{new}.{module}" for module in modules})
    return names | {f"{old}.{name}": (f"{new}.{name}",) for name in projections}


def to_published(arrays: Mapping[str, NDArray[Any]], names: Names, what: str) -> Arrays:
    """Arrays under their published names and in the published shapes; as `renaming.published_entries`."""
    entries = published_entries({name: Entry.of(value) for name, value in arrays.items()}, names, what)
    return {name: entry.read() for name, entry in entries.items()}


def from_published(arrays: Mapping[str, NDArray[Any]], names: Names, what: str) -> Arrays:
    """Arrays under LDM's names and in LDM's shapes; the inverse of `to_published`."""
    entries = original_entries({name: Entry.of(value) for name, value in arrays.items()}, names, what)
    return {name: entry.read() for name, entry in entries.items()}
