"""LoRA under the names of kohya-ss/sd-scripts, which ComfyUI, A1111's web UI, Forge and InvokeAI look for.

SD 1's and 2's UNet has diffusers' names there, SDXL's, SD 3's and Flux's those of the original repositories, in which
queries, keys and values are one layer; text encoders have transformers' names.  Points become underlines.

SD 3's files are folded and have no `.alpha`: A1111's loader (1.10) cuts the names of a file for SD 3 at their last two
points, and stops with an error at one that has fewer.  Without it, all readers count factors once.

Sources: kohya-ss/sd-scripts `networks/{lora,lora_sd3,lora_flux}.py`; AUTOMATIC1111/stable-diffusion-webui
`extensions-builtin/Lora/networks.py`; comfyanonymous/ComfyUI `comfy/lora.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import ConfigError
from .lora_layouts import FLUX, MLP_RATIO, PER_BLOCK, SD3, original_transformer, original_unet, swaps
from .lora_pair import Pair, fold, stack
from .weights import Arrays

_FLUX_PIPELINE, _SD3_PIPELINE = "FluxPipeline", "StableDiffusion3Pipeline"
_ENCODERS = {
    "StableDiffusionPipeline": {"text_encoder": "lora_te"},
    "StableDiffusionXLPipeline": {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
    _SD3_PIPELINE: {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2", "text_encoder_3": "lora_te3"},
    _FLUX_PIPELINE: {"text_encoder": "lora_te1", "text_encoder_2": "lora_te3"},
}
"""What the names of text encoders' layers begin with."""
_UNETS = {"StableDiffusionPipeline": False, "StableDiffusionXLPipeline": True}
"""Whether the UNet's layers have the original repository's names."""
_TRANSFORMERS = {_SD3_PIPELINE: SD3, _FLUX_PIPELINE: FLUX}
PIPELINES = tuple(_ENCODERS)
"""Classes of model_index.json whose layers have such names."""


def kohya_arrays(pairs: Mapping[tuple[str, str], Pair], pipeline: str, per_block: int = PER_BLOCK) -> Arrays:
    """Raw factors and each layer's alpha (scale · rank) in kohya's names, in float32; `lora.write_lora` writes them.

    Where layers that are one there were trained apart, their factors are stacked, which takes the sum of their ranks.

    Args:
        pairs: by (component, layer) as published, from `lora.read_lora` or `lora.pairs_of`.
        pipeline: the class in model_index.json, one of `PIPELINES`.
        per_block: `layers_per_block` of the UNet.

    Raises:
        ConfigError: another pipeline, or a layer that has no such name.
    """
    if pipeline not in _ENCODERS:
        raise ConfigError(f"kohya: {pipeline}: kohya's trainer has no such names; it has for {', '.join(PIPELINES)}")
    parts: dict[str, tuple[str, ...]] = {}
    there: dict[str, dict[str, Pair]] = {}
    for (component, layer), pair in pairs.items():
        name, parts_of = _module(component, layer, pipeline, per_block)
        parts[name] = parts_of
        there.setdefault(name, {})[layer] = pair
    found: Arrays = {}
    for name, pairs_of in there.items():
        pair = _joined(parts[name], {layer: _float(pair) for layer, pair in pairs_of.items()})
        pair = fold(pair) if pipeline == _SD3_PIPELINE else pair
        found |= {f"{name}.lora_down.weight": pair.down, f"{name}.lora_up.weight": pair.up}
        if pipeline != _SD3_PIPELINE:
            found[f"{name}.alpha"] = np.array(pair.scale * pair.rank, np.float32)
        if pair.magnitude is not None:  # as LyCORIS 3 and later shape it
            found[f"{name}.dora_scale"] = pair.magnitude.reshape(-1, *(1,) * (pair.down.ndim - 1))
        elif any(part.magnitude is not None for part in pairs_of.values()):
            raise ConfigError(f"kohya: {name}: DoRA of some only of the layers that are one there; train all of them")
    return found


def lycoris_arrays(factors: Mapping[str, Arrays], pipeline: str, per_block: int = PER_BLOCK) -> Arrays:
    """LoHa's or LoKr's factors in LyCORIS's names: of a UNet and of text encoders kohya's, of transformers `lycoris_`
    and diffusers' own, as their products cannot be stacked where layers are one in the original.

    Args:
        factors: COMPONENT.LAYER -> by the ends of their names, alpha among them.

    Raises:
        ConfigError: another pipeline, or a layer that has no such name.
    """
    if pipeline not in _ENCODERS:
        raise ConfigError(f"kohya: {pipeline}: kohya's trainer has no such names; it has for {', '.join(PIPELINES)}")
    found: Arrays = {}
    for place, own in factors.items():
        component, _, layer = place.partition(".")
        if component == "transformer":
            name = f"lycoris_{layer.replace('.', '_')}"
        else:
            name, _ = _module(component, layer, pipeline, per_block)
        found |= {f"{name}.{kind}": array.astype(np.float32) for kind, array in own.items()}
    return found


def _module(component: str, layer: str, pipeline: str, per_block: int) -> tuple[str, tuple[str, ...]]:
    """kohya's name of the layer in whose weight a published layer's lies, and all published ones that do.

    Raises:
        ConfigError: it has none.
    """
    original: str | None = None
    parts: tuple[str, ...] = (layer,)
    if beginning := _ENCODERS[pipeline].get(component):
        original = layer
    elif component == "unet" and pipeline in _UNETS:
        beginning, original = "lora_unet", original_unet(layer, per_block) if _UNETS[pipeline] else layer
    elif component == "transformer" and pipeline in _TRANSFORMERS:
        beginning, fused = "lora_unet", original_transformer(layer, _TRANSFORMERS[pipeline])
        original, parts = (None, ()) if fused is None else fused
    if original is None:
        raise ConfigError(f"kohya: {component}.{layer}: kohya's names have none for this layer of a {pipeline}")
    return f"{beginning}_{original.replace('.', '_')}", parts


def _joined(parts: tuple[str, ...], there: Mapping[str, Pair]) -> Pair:
    """The factors of a layer from those of the published layers that lie in it.

    Args:
        parts: all of them, the first on top.
        there: those that have factors.
    """
    some = next(iter(there.values()))
    width = some.down.shape[1]
    if len(parts) == 1:
        if not swaps(parts[0], len(some.up), width):
            return some
        lengths = None if some.magnitude is None else np.concatenate(np.split(some.magnitude, 2)[::-1])
        return Pair(some.down, np.concatenate(np.split(some.up, 2)[::-1]), some.scale, lengths)
    outputs = [
        len(there[part].up) if part in there else width * (MLP_RATIO if part.endswith("proj_mlp") else 1)
        for part in parts
    ]
    return stack([there.get(part) for part in parts], outputs)


def _float(pair: Pair) -> Pair:
    lengths = None if pair.magnitude is None else pair.magnitude.astype(np.float32)
    return Pair(pair.down.astype(np.float32), pair.up.astype(np.float32), pair.scale, lengths)
