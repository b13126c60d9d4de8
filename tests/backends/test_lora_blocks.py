"""Blocks of a denoiser that get factors, by their names."""

from __future__ import annotations

import pytest

from dreamcore.backends.lora_blocks import Blocks, blocks_of
from dreamcore.errors import ConfigError

UNET = [
    *(f"down_blocks.{b}.attentions.{n}.transformer_blocks.0.attn1.to_q" for b in (0, 1) for n in (0, 1)),
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    *(f"up_blocks.{b}.attentions.{n}.transformer_blocks.0.attn1.to_q" for b in (0, 1) for n in (0, 1, 2)),
]
TRANSFORMER = [
    f"{kind}.{n}.attn.to_q" for kind in ("transformer_blocks", "single_transformer_blocks") for n in range(12)
]


@pytest.mark.parametrize(
    ("asked", "begin", "count"),
    [
        (["content", "style"], ("up_blocks.0.attentions.0.", "up_blocks.0.attentions.1."), 2),
        (["unet.up_blocks.0.attentions.0"], ("up_blocks.0.attentions.0.",), 1),
        (["up_blocks", "mid_block"], ("up_blocks.", "mid_block."), 7),
        (["down_blocks.*.attentions.1"], ("down_blocks.0.attentions.1.", "down_blocks.1.attentions.1."), 2),
        (["up_blocks.0-1.attentions.2"], ("up_blocks.0.attentions.2.", "up_blocks.1.attentions.2."), 2),
    ],
    ids=str,
)
def test_of_a_unet(asked: list[str], begin: tuple[str, ...], count: int) -> None:
    found = Blocks.of(asked, "unet").within("unet", UNET)
    assert len(found) == count and all(layer.startswith(begin) for layer in found)
    assert Blocks.of(asked, "unet").within("text_encoder", ["encoder.layers.0.q_proj"]) == {"encoder.layers.0.q_proj"}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["1", "10-11"], ["transformer_blocks.1", "transformer_blocks.10", "transformer_blocks.11"]),
        (["single_transformer_blocks.3"], ["single_transformer_blocks.3"]),
    ],
    ids=str,
)
def test_of_a_transformer(asked: list[str], found: list[str]) -> None:
    chosen = Blocks.of(asked, "transformer").within("transformer", TRANSFORMER)
    assert chosen == {f"{block}.attn.to_q" for block in found}


@pytest.mark.parametrize(
    "asked", ["7", "down_blocks.2", "attentions.0", "up_blocks.0.attentions.1-0", ".*", "content."]
)
def test_unknown_ones_are_refused_with_those_that_exist(asked: str) -> None:
    there = r"down_blocks\.0\.attentions\.0-1, down_blocks\.1\.attentions\.0-1, mid_block\.attentions\.0, up_blocks"
    with pytest.raises(ConfigError, match=rf"^lora_blocks: .*no such block of the unet .*; there are {there}"):
        Blocks.of(["up_blocks.0", asked], "unet").within("unet", UNET)


def test_names_of_blocks() -> None:
    assert blocks_of(TRANSFORMER) == ["single_transformer_blocks.0-11", "transformer_blocks.0-11"]
    assert blocks_of(["layers.2.q", "layers.0.q", "x_embedder"]) == ["layers.0", "layers.2"]
