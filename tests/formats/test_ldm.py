"""LDM's names and MindONE's: a few as they are published, and all of them there and back."""

from __future__ import annotations

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.ldm import (
    OPEN_CLIP,
    UNET,
    VAE,
    UNetGeometry,
    VAEGeometry,
    from_published,
    text_names,
    to_published,
    unet_names,
    vae_names,
)
from dreamcore.formats.ldm_geometry import unet_shapes
from dreamcore.formats.mindone import by_part, ldm_name, mindone_name
from dreamcore.formats.renaming import Names
from dreamcore.formats.weights import Arrays

# LDM's name, the published one: from the checkpoints v1-5-pruned-emaonly and v2-1_768-ema-pruned
UNET_NAMES = {
    "time_embed.2.bias": "time_embedding.linear_2.bias",
    "input_blocks.0.0.weight": "conv_in.weight",
    "input_blocks.3.0.op.weight": "down_blocks.0.downsamplers.0.conv.weight",
    "input_blocks.4.0.skip_connection.weight": "down_blocks.1.resnets.0.conv_shortcut.weight",
    "input_blocks.11.0.emb_layers.1.weight": "down_blocks.3.resnets.1.time_emb_proj.weight",
    "middle_block.2.out_layers.3.bias": "mid_block.resnets.1.conv2.bias",
    "output_blocks.2.1.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
    "output_blocks.8.2.conv.bias": "up_blocks.2.upsamplers.0.conv.bias",
    "output_blocks.11.1.transformer_blocks.0.attn2.to_out.0.bias": (
        "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.bias"
    ),
    "out.2.bias": "conv_out.bias",
}
VAE_NAMES = {
    "encoder.down.1.block.0.nin_shortcut.weight": "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
    "encoder.mid.attn_1.q.bias": "encoder.mid_block.attentions.0.to_q.bias",
    "decoder.mid.block_2.norm1.weight": "decoder.mid_block.resnets.1.norm1.weight",
    "decoder.up.3.upsample.conv.bias": "decoder.up_blocks.0.upsamplers.0.conv.bias",
    "decoder.up.0.block.2.conv2.weight": "decoder.up_blocks.3.resnets.2.conv2.weight",
    "post_quant_conv.weight": "post_quant_conv.weight",
}
MINDONE_NAMES = {
    f"{UNET}input_blocks.0.0.weight": f"{UNET}input_blocks.0.0.conv.weight",
    f"{UNET}input_blocks.10.0.in_layers.0.bias": f"{UNET}input_blocks.10.0.in_layers_norm.beta",
    f"{UNET}input_blocks.1.0.out_layers.3.weight": f"{UNET}input_blocks.1.0.out_layers_conv.conv.weight",
    f"{UNET}input_blocks.3.0.op.bias": f"{UNET}input_blocks.3.0.op.conv.bias",
    f"{UNET}input_blocks.4.0.skip_connection.weight": f"{UNET}input_blocks.4.0.skip_connection.conv.weight",
    f"{UNET}input_blocks.1.1.norm.weight": f"{UNET}input_blocks.1.1.norm.gamma",
    f"{UNET}input_blocks.1.1.proj_in.weight": f"{UNET}input_blocks.1.1.proj_in.weight",
    f"{UNET}middle_block.1.transformer_blocks.0.norm3.bias": f"{UNET}middle_block.1.transformer_blocks.0.norm3.beta",
    f"{UNET}output_blocks.2.1.conv.weight": f"{UNET}output_blocks.2.1.conv.conv.weight",
    f"{UNET}out.0.weight": f"{UNET}out.0.gamma",
    f"{UNET}out.2.weight": f"{UNET}out.2.conv.weight",
    f"{VAE}encoder.mid.attn_1.norm.weight": f"{VAE}encoder.mid.attn_1.norm.gamma",
    f"{VAE}decoder.norm_out.bias": f"{VAE}decoder.norm_out.beta",
    f"{VAE}encoder.down.0.downsample.conv.weight": f"{VAE}encoder.down.0.downsample.conv.weight",
    f"{OPEN_CLIP}token_embedding.weight": "cond_stage_model.transformer.embedding_table",
    f"{OPEN_CLIP}ln_final.weight": "cond_stage_model.transformer.ln_final.gamma",
    f"{OPEN_CLIP}transformer.resblocks.7.mlp.c_fc.bias": (
        "cond_stage_model.transformer.transformer_layer.resblocks.7.c_fc.bias"
    ),
    f"{OPEN_CLIP}transformer.resblocks.0.attn.in_proj_weight": (
        "cond_stage_model.transformer.transformer_layer.resblocks.0.attn.attn.in_proj.weight"
    ),
}
TABLES = {
    UNET: unet_names(UNetGeometry()),
    VAE: vae_names(VAEGeometry()),
    OPEN_CLIP: text_names(23, open_clip=True),
}


def placeholders(names: Names) -> Arrays:
    """An array, unlike all others, for each published name."""
    published = [name for pieces in names.values() for name in pieces]
    return {name: np.full((2, 2), number, np.float32) for number, name in enumerate(published)}


def test_names_as_they_are_published() -> None:
    assert {old: TABLES[UNET][old] for old in UNET_NAMES} == {old: (new,) for old, new in UNET_NAMES.items()}
    assert {old: TABLES[VAE][old] for old in VAE_NAMES} == {old: (new,) for old, new in VAE_NAMES.items()}
    assert [len(table) for table in TABLES.values()] == [686, 248, 23 * 12 + 4]
    assert len(text_names(12, open_clip=False)) == 12 * 16 + 4


def test_queries_keys_and_values_are_one_array_in_openclip() -> None:
    layer = "text_model.encoder.layers.3.self_attn"
    names = text_names(4, open_clip=True)
    assert names["transformer.resblocks.3.attn.in_proj_bias"] == tuple(f"{layer}.{x}_proj.bias" for x in "qkv")
    arrays = placeholders(names)
    fused = from_published(arrays, names, "x")["transformer.resblocks.3.attn.in_proj_bias"]
    assert fused.shape == (6, 2)
    assert np.array_equal(fused[2:4], arrays[f"{layer}.k_proj.bias"])


@pytest.mark.parametrize("names", [*TABLES.values(), text_names(2, open_clip=False)])
def test_there_and_back(names: Names) -> None:
    arrays = placeholders(names)
    again = to_published(from_published(arrays, names, "x"), names, "x")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())


def test_the_autoencoders_attention_is_a_convolution() -> None:
    names = vae_names(VAEGeometry())
    arrays = placeholders(names)
    old = from_published(arrays, names, "x")
    name = "decoder.mid.attn_1.proj_out.weight"
    assert old[name].shape == (2, 2, 1, 1)
    as_conv1d = {**old, name: old[name][..., 0]}
    assert to_published(as_conv1d, names, "x")["decoder.mid_block.attentions.0.to_out.0.weight"].shape == (2, 2)
    with pytest.raises(ConfigError, match="x: decoder.mid.attn_1.proj_out.weight: expected a convolution of size 1"):
        to_published({**old, name: np.zeros((2, 2, 3, 3))}, names, "x")


def test_every_name_is_accounted_for() -> None:
    names = text_names(1, open_clip=True)
    old = from_published(placeholders(names), names, "x")
    with pytest.raises(ConfigError, match="x: unexpected keys: text_projection"):
        to_published({**old, "text_projection": np.zeros(1)}, names, "x")
    del old["ln_final.bias"]
    with pytest.raises(ConfigError, match="x: missing keys: ln_final.bias"):
        to_published(old, names, "x")
    with pytest.raises(ConfigError, match="does not split into 3"):
        fused = {"ln_final.bias": np.zeros(2), "transformer.resblocks.0.attn.in_proj_bias": np.zeros(4)}
        to_published(old | fused, names, "x")


def test_mindones_names() -> None:
    assert {old: mindone_name(old) for old in MINDONE_NAMES} == MINDONE_NAMES


def test_mindones_names_there_and_back() -> None:
    full = [part + name for part, names in TABLES.items() for name in names]
    theirs = [mindone_name(name) for name in full]
    assert [ldm_name(name) for name in theirs] == full
    assert len(set(theirs)) == len(full)


def test_the_autoencoders_norms_under_both_names() -> None:
    """MindONE's list of 2023 for SD 2 has `weight` and `bias`."""
    for name in (f"{VAE}encoder.mid.attn_1.norm.weight", f"{VAE}encoder.mid.attn_1.norm.gamma"):
        assert list(by_part({name: np.zeros(1)}, "x")[VAE]) == ["encoder.mid.attn_1.norm.weight"]


def test_what_is_no_weight_of_the_model() -> None:
    noted = {"epoch_num": np.array(3), "sqrt_one_minus_alphas_cumprod": np.zeros(10), "lora_rank": np.array(4)}
    assert not any(by_part(noted, "x").values())
    with pytest.raises(ConfigError, match="x: unexpected keys: control_model.time_embed.0.weight; expected weights"):
        by_part({"control_model.time_embed.0.weight": np.zeros(1)}, "x")
    name = f"{VAE}encoder.norm_out."
    with pytest.raises(ConfigError, match="two names"):
        by_part({name + "weight": np.zeros(1), name + "gamma": np.zeros(1)}, "x")


@pytest.mark.parametrize(
    "geometry",
    [
        UNetGeometry(),
        UNetGeometry((32, 64), 1, (True, False)),
        UNetGeometry((8, 8, 24), 3, (False, True, True), 2),
        UNetGeometry((64, 32), 1, (True, True)),
    ],
)
def test_geometry_is_read_from_shapes(geometry: UNetGeometry) -> None:
    arrays = {old: np.zeros((2, 7, 1, 1), np.float32) for old in unet_names(geometry)}
    block = 1
    for level, channels in enumerate(geometry.channels):
        for _ in range(geometry.layers):
            arrays[f"input_blocks.{block}.0.in_layers.2.weight"] = np.zeros((channels, 1, 3, 3), np.float32)
            block += 1
        block += level < len(geometry.channels) - 1
    arrays["input_blocks.0.0.weight"] = np.zeros((geometry.channels[0], 4, 3, 3), np.float32)
    found = unet_shapes(arrays, "x")
    assert found.geometry == geometry
    assert (found.in_channels, found.out_channels, found.context, found.linear) == (4, 2, 7, False)


def test_a_network_that_is_no_unet() -> None:
    with pytest.raises(ConfigError, match="x: its blocks are no UNet"):
        unet_shapes({"input_blocks.0.0.weight": np.zeros((4, 4, 3, 3))}, "x")
