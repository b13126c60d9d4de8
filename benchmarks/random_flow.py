"""Stable Diffusion 3 medium's and Flux.1 dev's denoisers in their real geometry, with random weights in bfloat16.

    python -m benchmarks.random_flow sd3|flux FOLDER

Text encoders have their widths and two layers: prompts are embedded before the first update, which never sees them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.support.tiny_families import write_flux, write_sd3

from .random_sdxl import _write

VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "sample_size": 1024,
}
SPACES = {"sd3": (1.5305, 0.0609), "flux": (0.3611, 0.1159)}
"""Factor and shift of the latents."""


def write_random_flow(family: str, folder: Path) -> Path:
    """Write the model in diffusers' layout, around a small one's tokenizers and scheduler; returns the folder."""
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    (write_sd3 if family == "sd3" else write_flux)(folder)
    factor, shift = SPACES[family]
    small = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))

    def clip(width: int, heads: int) -> Any:
        words = {name: small[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
        return CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2,
            num_attention_heads=heads,
            projection_dim=width,
            **words,
        )

    third = "text_encoder_3" if family == "sd3" else "text_encoder_2"
    t5 = json.loads((folder / third / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        networks: dict[str, Any] = {
            "vae": AutoencoderKL(**VAE, scaling_factor=factor, shift_factor=shift),
            third: T5EncoderModel(
                T5Config(
                    **t5
                    | {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 2}
                    | {"feed_forward_proj": "gated-gelu"}
                )
            ),
        }
        if family == "sd3":
            networks |= {
                "transformer": SD3Transformer2DModel(
                    sample_size=128,
                    num_layers=24,
                    attention_head_dim=64,
                    num_attention_heads=24,
                    joint_attention_dim=4096,
                    caption_projection_dim=1536,
                    pooled_projection_dim=2048,
                    out_channels=16,
                    pos_embed_max_size=192,
                ),
                "text_encoder": CLIPTextModelWithProjection(clip(768, 12)),
                "text_encoder_2": CLIPTextModelWithProjection(clip(1280, 20)),
            }
        else:
            networks |= {
                "transformer": FluxTransformer2DModel(guidance_embeds=True),  # whose own numbers are dev's
                "text_encoder": CLIPTextModel(clip(768, 12)),
            }
    for name, network in networks.items():
        shutil.rmtree(folder / name)
        _write(network, folder / name)
    return folder


if __name__ == "__main__":
    print(write_random_flow(sys.argv[1], Path(sys.argv[2])))
