"""A Stable Diffusion XL of random weights in its real geometry and bfloat16: `python -m benchmarks.random_sdxl FOLDER`.

Nothing is drawn layer by layer, which takes minutes: every weight is a part of the same random numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.tiny import write_tokenizer

DRAWN = 2**22
"""Random numbers, which come again and again."""


def write_random_sdxl(folder: Path) -> Path:
    """Write the model in diffusers' layout; returns the folder."""
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    words = {"vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    clip = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        **words,
    )
    big = CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
        hidden_act="gelu",
        **words,
    )
    with torch.device("meta"):
        networks: dict[str, Any] = {
            "unet": UNet2DConditionModel(
                sample_size=128,
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 10),
                cross_attention_dim=2048,
                attention_head_dim=(5, 10, 20),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            ),
            "vae": AutoencoderKL(
                sample_size=1024,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                scaling_factor=0.13025,
            ),
            "text_encoder": CLIPTextModel(clip),
            "text_encoder_2": CLIPTextModelWithProjection(big),
        }
    for name, network in networks.items():
        _write(network, folder / name)
    write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2", True)
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.42.1",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return folder


def _write(network: Any, folder: Path) -> None:
    """Weights of a network that has none, as published ones: matrices as they begin, norms 1, biases 0."""
    import torch
    from safetensors.torch import save_file

    drawn = torch.randn(DRAWN, generator=torch.Generator().manual_seed(0)).bfloat16()
    tensors = {}
    for name, weight in network.state_dict().items():
        shape, published = weight.shape, name
        if type(network).__name__.startswith("CLIP") and not name.startswith(("text_model.", "text_projection.")):
            published = f"text_model.{name}"
        if len(shape) < 2:
            tensors[published] = torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
            continue
        fan_in = shape[1:].numel()
        numbers = drawn.repeat(-(-shape.numel() // DRAWN))[: shape.numel()]
        tensors[published] = (numbers * fan_in**-0.5).view(shape)
    folder.mkdir(parents=True)
    diffusers = hasattr(network, "save_config")
    (network.save_config if diffusers else network.config.save_pretrained)(folder)
    file = "diffusion_pytorch_model.safetensors" if diffusers else "model.safetensors"
    save_file(tensors, folder / file, metadata={"format": "pt"})


if __name__ == "__main__":
    print(write_random_sdxl(Path(sys.argv[1])))
