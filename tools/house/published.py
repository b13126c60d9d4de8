"""Models of the published sizes, as far as a plan of memory reads them: configurations, and headers of weight files.

No weight is fetched or made: networks are built on PyTorch's meta device, and a file holds its header and then a hole.
Sizes are those of the configurations that the repositories publish.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.tiny import write_json, write_tiny_model
from tests.support.tiny_families import WRITERS

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
SD1 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD2 = {"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}
SDXL = {
    "sample_size": 128, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20], "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SD3 = {
    "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "joint_attention_dim": 4096,
    "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "out_channels": 16, "pos_embed_max_size": 192,
}  # fmt: skip
FLUX = {
    "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24,
    "joint_attention_dim": 4096, "pooled_projection_dim": 768, "guidance_embeds": True,
}  # fmt: skip
VAE = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
VAE_16 = VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}


def write_published(folder: Path, preset: str) -> Path:
    """The model that a preset names, by its first letters (sd15, sd21, sdxl, sd3, flux)."""
    family = preset.partition("-")[0]
    tiny: Callable[[Path], Path] = WRITERS.get(family, lambda path: write_tiny_model(path, sd2=family == "sd21"))
    tiny(folder)
    for component, (network, kind) in _components(family).items():
        _write(folder / component, network, kind)
    return folder


def _components(family: str) -> dict[str, tuple[Any, str]]:
    """Network on the meta device, and the type of number in its file, by component."""
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

    with torch.device("meta"):
        if family == "sd3":
            return {
                "transformer": (SD3Transformer2DModel(**SD3), "F16"), "vae": (AutoencoderKL(**VAE_16), "F16"),
                "text_encoder": (_clip(CLIP_L, 768), "F16"), "text_encoder_2": (_clip(CLIP_G, 1280), "F16"),
                "text_encoder_3": (_t5(), "F16"),
            }  # fmt: skip
        if family == "flux":
            return {
                "transformer": (FluxTransformer2DModel(**FLUX), "BF16"), "vae": (AutoencoderKL(**VAE_16), "BF16"),
                "text_encoder": (_clip(CLIP_L), "BF16"), "text_encoder_2": (_t5(), "BF16"),
            }  # fmt: skip
        vae = (AutoencoderKL(**VAE), "F32")
        if family == "sdxl":
            text = {"text_encoder": (_clip(CLIP_L), "F32"), "text_encoder_2": (_clip(CLIP_G, 1280), "F32")}
            return {"unet": (UNet2DConditionModel(**SDXL), "F32"), "vae": vae} | text
        unet, clip = (SD1, CLIP_L) if family == "sd15" else (SD2 | {"use_linear_projection": True}, CLIP_H)
        return {"unet": (UNet2DConditionModel(**unet), "F32"), "vae": vae, "text_encoder": (_clip(clip), "F32")}


def _clip(sizes: Mapping[str, int], projection: int | None = None) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(vocab_size=49408, projection_dim=projection or 512, **sizes)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    return T5EncoderModel(T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", is_encoder_decoder=False, **sizes))


def _write(folder: Path, network: Any, kind: str) -> None:
    """A component's config.json, and a file of weights that is a header and a hole."""
    for old in folder.glob("*.safetensors"):
        old.unlink()
    text = hasattr(network.config, "to_diff_dict")
    config = network.config.to_dict() if text else dict(network.config)
    write_json(folder / "config.json", json.loads(json.dumps(config, default=str)))
    each, at, header = 4 if kind == "F32" else 2, 0, dict[str, Any]()
    for name, parameter in network.named_parameters():
        size = parameter.numel() * each
        header[name] = {"dtype": kind, "shape": list(parameter.shape), "data_offsets": [at, at + size]}
        at += size
    content = json.dumps(header).encode()
    file = folder / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors")
    with file.open("wb") as opened:
        opened.write(len(content).to_bytes(8, "little") + content)
        opened.truncate(8 + len(content) + at)
