"""Names of Flux's transformer in one file, as its authors and ComfyUI give them, and the published ones.

Queries, keys and values are one tensor, in single blocks together with the first layer of the perceptron; the last
layer's scale and shift come in the other order.

Sources: black-forest-labs/flux `src/flux/model.py` and `src/flux/modules/layers.py`, and diffusers'
`loaders/single_file_utils.py`, against which tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .ldm_geometry import Shaped, Sides
from .renaming import Names, Swapped, Uneven

BOTH = ("weight", "bias")
_EMBEDDERS = {"time_in": "timestep_embedder", "vector_in": "text_embedder"}
_GUIDANCE = {"guidance_in": "guidance_embedder"}
_HALVES = {
    "img": ("", "to_{}", "norm_{}", "to_out.0"),
    "txt": ("_context", "add_{}_proj", "norm_added_{}", "to_add_out"),
}
"""Of a double block: the file's name of the half -> what marks its published norm and perceptron, and its published
names of projections, of norms of queries and keys, and of the output."""
_NORMS = {"q": "query_norm", "k": "key_norm"}


@dataclass(frozen=True)
class FluxGeometry:
    """A transformer, as far as its names depend on it; `guided`: it is told the strength of guidance, as dev is."""

    double: int = 19
    single: int = 38
    guided: bool = True


@dataclass(frozen=True)
class FluxShapes:
    """What a transformer's tensors tell."""

    geometry: FluxGeometry
    width: int
    in_channels: int
    out_channels: int
    words: int
    pooled: int
    head: int


def flux_names(geometry: FluxGeometry) -> Names:
    """The transformer's names, the file's without what they may begin with there."""
    modules = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
    for old, new in (_EMBEDDERS | (_GUIDANCE if geometry.guided else {})).items():
        modules |= {f"{old}.{side}_layer": f"time_text_embed.{new}.linear_{n}" for n, side in ((1, "in"), (2, "out"))}
    names = _both(modules)
    for kind in BOTH:
        names[f"final_layer.adaLN_modulation.1.{kind}"] = Swapped((f"norm_out.linear.{kind}",))
    for number in range(geometry.double):
        names |= _double(number)
    for number in range(geometry.single):
        names |= _single(number)
    return names


def _double(number: int) -> Names:
    names: Names = {}
    for half, (mark, projection, norm, output) in _HALVES.items():
        old, new = f"double_blocks.{number}.{half}", f"transformer_blocks.{number}"
        names |= _both(
            {
                f"{old}_mod.lin": f"{new}.norm1{mark}.linear",
                f"{old}_attn.proj": f"{new}.attn.{output}",
                f"{old}_mlp.0": f"{new}.ff{mark}.net.0.proj",
                f"{old}_mlp.2": f"{new}.ff{mark}.net.2",
            }
        )
        for kind in BOTH:
            names[f"{old}_attn.qkv.{kind}"] = tuple(f"{new}.attn.{projection.format(x)}.{kind}" for x in "qkv")
        for x, called in _NORMS.items():
            names[f"{old}_attn.norm.{called}.scale"] = (f"{new}.attn.{norm.format(x)}.weight",)
    return names


def _single(number: int) -> Names:
    old, new = f"single_blocks.{number}", f"single_transformer_blocks.{number}"
    names = _both({f"{old}.modulation.lin": f"{new}.norm.linear", f"{old}.linear2": f"{new}.proj_out"})
    for kind in BOTH:
        projections = (*(f"{new}.attn.to_{x}.{kind}" for x in "qkv"), f"{new}.proj_mlp.{kind}")
        names[f"{old}.linear1.{kind}"] = Uneven(projections)
    return names | {f"{old}.norm.{called}.scale": (f"{new}.attn.norm_{x}.weight",) for x, called in _NORMS.items()}


def _both(modules: Mapping[str, str]) -> Names:
    return {f"{old}.{kind}": (f"{new}.{kind}",) for old, new in modules.items() for kind in BOTH}


def flux_shapes(tensors: Mapping[str, Shaped], what: str) -> FluxShapes:
    """A transformer's geometry; as `sd3.sd3_shapes`."""
    sides = Sides(tensors, what)
    return FluxShapes(
        FluxGeometry(
            sides.counted("double_blocks.{}.img_attn.qkv.weight"),
            sides.counted("single_blocks.{}.linear1.weight"),
            "guidance_in.in_layer.weight" in sides.names,
        ),
        width=sides.side("img_in.weight", 0),
        in_channels=sides.side("img_in.weight", 1),
        out_channels=sides.side("final_layer.linear.weight", 0),
        words=sides.side("txt_in.weight", 1),
        pooled=sides.side("vector_in.in_layer.weight", 1),
        head=sides.side("double_blocks.0.img_attn.norm.query_norm.scale", 0),
    )
