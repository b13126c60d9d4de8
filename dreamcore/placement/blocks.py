"""The blocks of a denoiser, which can wait on the host until their turn comes, by the names of its weights alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

BLOCK = re.compile(
    r"((?:(?:down|up)_blocks\.\d+|mid_block)\.(?:resnets|attentions)\.\d+"
    r"|(?!down_blocks|up_blocks)\w*(?:blocks|layers|refiner)\.\d+)\."
)
"""Of a UNet, whose levels are too large, each layer that is called by itself; of a transformer, a member of a list."""
UNIT = re.compile(r"((?:down|up)_blocks\.\d+\.\w+samplers\.\d+|(?:\w+\.)*?(?:layers|block)\.\d+)\.")
"""Of a network that ranks share out, what is called by itself besides."""


def block_of(name: str) -> str | None:
    """The block that a weight belongs to; None for what is in no block.

    >>> block_of("down_blocks.1.attentions.0.proj_in.weight"), block_of("transformer_blocks.7.attn.to_q.weight")
    ('down_blocks.1.attentions.0', 'transformer_blocks.7')
    >>> block_of("conv_in.weight"), block_of("down_blocks.1.downsamplers.0.conv.weight")
    (None, None)
    """
    found = BLOCK.match(name)
    return found[1] if found else None


def unit_of(name: str) -> str:
    """What a weight is gathered with, where ranks share weights out: its block, a text encoder's layer, what changes a
    UNet's sizes; "" for the rest of its network.

    Args:
        name: the weight's path within its network.

    >>> unit_of("up_blocks.0.upsamplers.0.conv.weight"), unit_of("text_model.encoder.layers.11.mlp.fc1.bias")
    ('up_blocks.0.upsamplers.0', 'text_model.encoder.layers.11')
    >>> unit_of("encoder.block.3.layer.0.SelfAttention.q.weight"), unit_of("conv_in.weight")
    ('encoder.block.3', '')
    """
    if block := block_of(name):
        return block
    found = UNIT.match(name)
    return found[1] if found else ""


def blocks_by_size(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """A network's blocks and the numbers that they hold, the largest first: so a few that wait spare the most.

    Args:
        shapes: of the network's weights, by published name.
    """
    sizes = Counter[str]()
    for name, shape in shapes.items():
        if block := block_of(name):
            sizes[block] += math.prod(shape)
    return dict(sorted(sizes.items(), key=lambda one: (-one[1], _natural(one[0]))))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in name.split(".")]
