"""Single files of published models by their names and shapes, without their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from dreamcore.formats.flux import FluxGeometry
from dreamcore.formats.ldm import UNetGeometry, VAEGeometry
from dreamcore.formats.sd3 import SD3Geometry
from dreamcore.formats.single_files import FLUX, SD1, SD2, SD3, SDXL, Layout
from dreamcore.formats.tensors import Entry
from dreamcore.models.original_geometry import Geometry, names_of

SMALL = (84, 2)
"""Of tensors whose shapes tell nothing: it splits into 2, 3 and 7."""
XL_UNET = UNetGeometry((320, 640, 1280), 2, (False, True, True), (1, 2, 10), labelled=True)
PLAIN_VAE = VAEGeometry(quantized=False)
Sizes = dict[str, tuple[int, ...]]


def entry(*shape: int, dtype: str = "F16") -> Entry:
    numbers = np.uint16(0) if dtype == "BF16" else np.zeros((), {"F16": np.float16, "F32": np.float32}[dtype])
    return Entry(dtype, shape, lambda: np.broadcast_to(numbers, shape))


def published(name: str) -> tuple[Layout, dict[str, Entry]]:
    """A published model: sd1, sd2, sdxl, sd3, sd35 (medium), flux (dev) or schnell."""
    layout, parts = MODELS[name]
    found: dict[str, Entry] = {}
    for part in layout.parts:
        geometry, sizes = parts[part.component]
        shapes: Sizes = dict.fromkeys(names_of(part, geometry), SMALL) | sizes
        found |= {part.prefixes[0] + short: entry(*shape) for short, shape in shapes.items()}
    return layout, found


def _unet(geometry: UNetGeometry, context: int, linear: bool, **more: tuple[int, ...]) -> tuple[Geometry, Sizes]:
    sizes: Sizes = {"input_blocks.0.0.weight": (geometry.channels[0], 4, 3, 3), "out.2.weight": (4, 320, 3, 3)}
    block = 1
    for level, channels in enumerate(geometry.channels):
        for _ in range(geometry.layers):
            sizes[f"input_blocks.{block}.0.in_layers.2.weight"] = channels, 1, 3, 3
            block += 1
        block += level < len(geometry.channels) - 1
    widest = geometry.channels[-1]
    sizes["middle_block.1.proj_in.weight"] = (widest, widest) if linear else (widest, widest, 1, 1)
    sizes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"] = widest, context
    return geometry, sizes | {name.replace("__", "."): shape for name, shape in more.items()}


def _vae(geometry: VAEGeometry, latents: int) -> tuple[Geometry, Sizes]:
    sizes: Sizes = {
        f"encoder.down.{level}.block.0.conv1.weight": (channels, 1, 3, 3)
        for level, channels in enumerate(geometry.channels)
    }
    first = {"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_out.weight": (3, 128, 3, 3)}
    return geometry, sizes | first | {"decoder.conv_in.weight": (512, latents, 3, 3)}


def _clip(layers: int, width: int, **more: tuple[int, ...]) -> tuple[Geometry, Sizes]:
    sizes: Sizes = {
        "text_model.embeddings.token_embedding.weight": (49408, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
        "text_model.encoder.layers.0.mlp.fc1.weight": (4 * width, width),
    }
    return layers, sizes | {name.replace("__", "."): shape for name, shape in more.items()}


def _open_clip(layers: int, width: int, **more: tuple[int, ...]) -> tuple[Geometry, Sizes]:
    sizes: Sizes = {
        "token_embedding.weight": (49408, width),
        "positional_embedding": (77, width),
        "transformer.resblocks.0.mlp.c_fc.weight": (4 * width, width),
    }
    return layers, sizes | more


def _t5() -> tuple[Geometry, Sizes]:
    attention = "encoder.block.0.layer.0.SelfAttention"
    return 24, {
        "shared.weight": (32128, 4096),
        f"{attention}.q.weight": (4096, 4096),
        f"{attention}.relative_attention_bias.weight": (32, 64),
        "encoder.block.0.layer.1.DenseReluDense.wo.weight": (4096, 10240),
    }


def _sd3(geometry: SD3Geometry, positions: int, heads: int) -> tuple[Geometry, Sizes]:
    sizes: Sizes = {
        "pos_embed": (1, positions**2, heads * 64),
        "x_embedder.proj.weight": (heads * 64, 16, 2, 2),
        "final_layer.linear.weight": (64, heads * 64),
        "context_embedder.weight": (heads * 64, 4096),
        "y_embedder.mlp.0.weight": (heads * 64, 2048),
    }
    return geometry, sizes | ({"joint_blocks.0.x_block.attn.ln_q.weight": (64,)} if geometry.normalized else {})


def _flux(geometry: FluxGeometry) -> tuple[Geometry, Sizes]:
    return geometry, {
        "img_in.weight": (3072, 64),
        "txt_in.weight": (3072, 4096),
        "vector_in.in_layer.weight": (3072, 768),
        "final_layer.linear.weight": (64, 3072),
        "double_blocks.0.img_attn.norm.query_norm.scale": (128,),
    }


def _with_words(transformer: tuple[Geometry, Sizes]) -> dict[str, tuple[Geometry, Sizes]]:
    """Stable Diffusion 3's."""
    projection: Any = {"text_projection__weight": (1280, 1280)}
    encoders = {"text_encoder": _clip(12, 768, text_projection__weight=(768, 768)), "text_encoder_3": _t5()}
    return {"transformer": transformer, "vae": _vae(PLAIN_VAE, 16), "text_encoder_2": _clip(32, 1280, **projection)} | (
        encoders
    )


def _of_flux(guided: bool) -> dict[str, tuple[Geometry, Sizes]]:
    transformer = _flux(FluxGeometry(guided=guided))
    encoders = {"text_encoder": _clip(12, 768), "text_encoder_2": _t5()}
    return {"transformer": transformer, "vae": _vae(PLAIN_VAE, 16), **encoders}


MODELS: dict[str, tuple[Layout, dict[str, tuple[Geometry, Sizes]]]] = {
    "sd1": (
        SD1,
        {"unet": _unet(UNetGeometry(), 768, False), "vae": _vae(VAEGeometry(), 4), "text_encoder": _clip(12, 768)},
    ),
    "sd2": (
        SD2,
        {
            "unet": _unet(UNetGeometry(), 1024, True),
            "vae": _vae(VAEGeometry(), 4),
            "text_encoder": _open_clip(23, 1024),
        },
    ),
    "sdxl": (
        SDXL,
        {
            "unet": _unet(XL_UNET, 2048, True, label_emb__0__0__weight=(1280, 2816)),
            "vae": _vae(VAEGeometry(), 4),
            "text_encoder": _clip(12, 768),
            "text_encoder_2": _open_clip(32, 1280, text_projection=(1280, 1280)),
        },
    ),
    "sd3": (SD3, _with_words(_sd3(SD3Geometry(), 192, 24))),
    "sd35": (SD3, _with_words(_sd3(SD3Geometry(24, True, tuple(range(13))), 384, 24))),
    "flux": (FLUX, _of_flux(True)),
    "schnell": (FLUX, _of_flux(False)),
}
"""Name -> its layout and, by component, its geometry and the shapes that tell it."""
