"""Names of Stable Diffusion 3's transformer in one file, as its authors and ComfyUI give them, and the published ones.

Queries, keys and values are one tensor; the last layers' scale and shift come in the other order.

Sources: Stability-AI/sd3-ref `mmdit.py`, Stability-AI/sd3.5 `mmditx.py`, and diffusers' `loaders/single_file_utils.py`,
against which tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

from ..errors import ConfigError
from .ldm_geometry import Shaped, Sides
from .renaming import Names, Swapped

BOTH = ("weight", "bias")
_ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
}


@dataclass(frozen=True)
class SD3Geometry:
    """A transformer, as far as its names depend on it.

    Args:
        normalized: whether queries and keys are normalized (SD 3.5).
        dual: layers with a second attention, of the image alone (SD 3.5 medium).
    """

    layers: int = 24
    normalized: bool = False
    dual: tuple[int, ...] = ()


@dataclass(frozen=True)
class SD3Shapes:
    """What a transformer's tensors tell; `head` is None where they do not tell the width of a head."""

    geometry: SD3Geometry
    width: int
    patch: int
    in_channels: int
    out_channels: int
    words: int
    pooled: int
    positions: int
    head: int | None


def sd3_names(geometry: SD3Geometry) -> Names:
    """The transformer's names, the file's without what they begin with there."""
    names: Names = {"pos_embed": ("pos_embed.pos_embed",)}
    names |= {f"{old}.{kind}": (f"{new}.{kind}",) for old, new in _ENDS.items() for kind in BOTH}
    for kind in BOTH:
        names[f"final_layer.adaLN_modulation.1.{kind}"] = Swapped((f"norm_out.linear.{kind}",))
    for layer in range(geometry.layers):
        names |= _image(layer, geometry)
        names |= _words(layer, geometry)
    return names


def _image(layer: int, geometry: SD3Geometry) -> Names:
    """A layer's half for the image."""
    old, new = f"joint_blocks.{layer}.x_block", f"transformer_blocks.{layer}"
    modules = {"adaLN_modulation.1": "norm1.linear", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2"}
    names: Names = {}
    for attention in ("attn", "attn2")[: 2 if layer in geometry.dual else 1]:
        modules[f"{attention}.proj"] = f"{attention}.to_out.0"
        for kind in BOTH:
            names[f"{old}.{attention}.qkv.{kind}"] = tuple(f"{new}.{attention}.to_{x}.{kind}" for x in "qkv")
        if geometry.normalized:
            names |= {f"{old}.{attention}.ln_{x}.weight": (f"{new}.{attention}.norm_{x}.weight",) for x in "qk"}
    return names | {f"{old}.{a}.{kind}": (f"{new}.{b}.{kind}",) for a, b in modules.items() for kind in BOTH}


def _words(layer: int, geometry: SD3Geometry) -> Names:
    """A layer's half for the words, of which the last layer keeps little."""
    old, new = f"joint_blocks.{layer}.context_block", f"transformer_blocks.{layer}"
    last = layer == geometry.layers - 1
    modules = {"attn.proj": "attn.to_add_out", "mlp.fc1": "ff_context.net.0.proj", "mlp.fc2": "ff_context.net.2"}
    names: Names = {}
    for kind in BOTH:
        names[f"{old}.attn.qkv.{kind}"] = tuple(f"{new}.attn.add_{x}_proj.{kind}" for x in "qkv")
        modulation = (f"{new}.norm1_context.linear.{kind}",)
        names[f"{old}.adaLN_modulation.1.{kind}"] = Swapped(modulation) if last else modulation
    if geometry.normalized:
        names |= {f"{old}.attn.ln_{x}.weight": (f"{new}.attn.norm_added_{x}.weight",) for x in "qk"}
    if not last:
        names |= {f"{old}.{a}.{kind}": (f"{new}.{b}.{kind}",) for a, b in modules.items() for kind in BOTH}
    return names


def sd3_shapes(tensors: Mapping[str, Shaped], what: str) -> SD3Shapes:
    """A transformer's geometry.

    Args:
        tensors: by the file's names without what they begin with there.
        what: the file, for messages.

    Raises:
        ConfigError: tensors are missing.
    """
    sides = Sides(tensors, what)
    layers = sides.counted("joint_blocks.{}.x_block.attn.qkv.weight")
    normalized = "joint_blocks.0.x_block.attn.ln_q.weight"
    dual = tuple(n for n in range(layers) if f"joint_blocks.{n}.x_block.attn2.qkv.weight" in sides.names)
    geometry = SD3Geometry(layers, normalized in sides.names, dual)
    patch, outputs = sides.side("x_embedder.proj.weight", 2), sides.side("final_layer.linear.weight", 0)
    positions = sides.side("pos_embed", 1)
    if isqrt(positions) ** 2 != positions or outputs % patch**2:
        raise ConfigError(f"{what}: {positions} positions and {outputs} outputs are no Stable Diffusion 3's")
    return SD3Shapes(
        geometry,
        width=sides.side("x_embedder.proj.weight", 0),
        patch=patch,
        in_channels=sides.side("x_embedder.proj.weight", 1),
        out_channels=outputs // patch**2,
        words=sides.side("context_embedder.weight", 1),
        pooled=sides.side("y_embedder.mlp.0.weight", 1),
        positions=isqrt(positions),
        head=sides.side(normalized, 0) if geometry.normalized else None,
    )
