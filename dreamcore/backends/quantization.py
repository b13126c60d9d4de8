"""Frozen weights in fewer bits, under LoRA's factors: which weights, and the forms that they are kept in.

A weight is made whole, in the type of the arithmetic, when its layer is computed, and again in the backward pass: no
activation, and nothing that trains, has fewer bits.

    int8   a row (the weights of one output) is whole numbers of −127 … 127 times one factor
    fp8    a row is E4M3 floats (arXiv 2209.05433, largest 448) times one factor, a power of two, which rounds nothing
    nf4    blocks of 64 numbers are 4-bit NormalFloats times their largest magnitude; those magnitudes, less their mean,
           are 8-bit whole numbers times one factor for each 256 of them (QLoRA, arXiv 2305.14314, section 3: the second
           quantisation there is of floats)

Quantised are the products and convolutions inside the repeated blocks, which hold nearly all numbers.  Everything else
stays as it is: normalisations and biases, which are small and lie in no product; tables of embeddings, which are looked
up; what chooses among experts; and what lies outside of the blocks: first and last layers, embeddings of time, words
and positions, as every error there goes into all that follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..config.common import ModelSettings, Quantization
from ..config.train import TrainConfig
from ..models.folder import ModelFolder

BLOCK, SECOND_BLOCK = 64, 256
"""Numbers that share a magnitude in nf4, and magnitudes that share a factor."""
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The values of the sixteen 4-bit NormalFloats (QLoRA, appendix E)."""
EMBEDS = ("embed", "relative_attention_bias", "caption_projection", "distilled_guidance_layer")
"""Parts of the names of what is an embedding of words, times, positions or strengths, in numbered layers or not."""
GATE = "gate"
"""The layer that chooses among experts."""
IN_BLOCKS = ("mid_block",)
"""Blocks of a UNet whose names have no number."""


def quantised(name: str, shape: Sequence[int]) -> bool:
    """Whether a weight of this published name and shape is kept in fewer bits where its component is."""
    *parts, last = name.split(".")
    embeds = any(word in name for word in EMBEDS)
    if last != "weight" or len(shape) not in (2, 4) or embeds or parts[-1:] == [GATE]:
        return False
    return any(part.isdigit() or part in IN_BLOCKS for part in parts[:-1])


def methods(settings: ModelSettings, model: ModelFolder) -> dict[str, Quantization]:
    """How each component that is quantised is; text encoders that train are not."""
    found: dict[str, Quantization] = {}
    trains = isinstance(settings, TrainConfig) and settings.train_text_encoder
    if settings.quantize_text_encoders is not None:
        frozen = [e.network for e in model.text_encoders if not (trains and e.lora_layers)]
        found |= dict.fromkeys(frozen, settings.quantize_text_encoders)
    if settings.quantize_base is not None:
        found[model.family.denoiser] = settings.quantize_base
    return found


def stored_bytes(shape: Sequence[int], method: Quantization) -> int:
    """Bytes of a quantised weight, with all factors."""
    count = math.prod(shape)
    if method != "nf4":
        return count + 4 * shape[0]
    blocks = -(-count // BLOCK)
    return blocks * BLOCK // 2 + blocks + 4 * -(-blocks // SECOND_BLOCK) + 4
