"""Names of T5's encoder, which are the published ones in every file, and what its tensors' shapes tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .ldm_geometry import Shaped, Sides
from .renaming import Names

TABLE = "shared.weight"
_ATTENTION, _PERCEPTRON = "layer.0.SelfAttention", "layer.1.DenseReluDense"


@dataclass(frozen=True)
class T5Shapes:
    """What the encoder's tensors tell: `inner` of the attention, all heads together; `wide` of the perceptron."""

    layers: int
    width: int
    inner: int
    wide: int
    heads: int
    buckets: int
    vocabulary: int


def t5_names(layers: int) -> Names:
    """The encoder's names (v1.1: with a gated perceptron)."""
    names = [TABLE, "encoder.final_layer_norm.weight", f"encoder.block.0.{_ATTENTION}.relative_attention_bias.weight"]
    for layer in range(layers):
        here = f"encoder.block.{layer}"
        names += [f"{here}.{_ATTENTION}.{x}.weight" for x in "qkvo"]
        names += [f"{here}.{_PERCEPTRON}.{x}.weight" for x in ("wi_0", "wi_1", "wo")]
        names += [f"{here}.layer.{x}.layer_norm.weight" for x in (0, 1)]
    return {name: (name,) for name in names}


def t5_shapes(tensors: Mapping[str, Shaped], what: str) -> T5Shapes:
    """The encoder's sizes; as `sd3.sd3_shapes`."""
    sides = Sides(tensors, what)
    bias = f"encoder.block.0.{_ATTENTION}.relative_attention_bias.weight"
    return T5Shapes(
        layers=sides.counted("encoder.block.{}.layer.0.layer_norm.weight"),
        width=sides.side(TABLE, 1),
        inner=sides.side(f"encoder.block.0.{_ATTENTION}.q.weight", 0),
        wide=sides.side(f"encoder.block.0.{_PERCEPTRON}.wo.weight", 1),
        heads=sides.side(bias, 1),
        buckets=sides.side(bias, 0),
        vocabulary=sides.side(TABLE, 0),
    )
