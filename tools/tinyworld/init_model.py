"""Write the model folder that the denoiser's training starts from: random weights around a trained autoencoder.

python tools/tinyworld/init_model.py --vae build/tinyworld/vae --out build/tinyworld/init
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizer import END, START, WINDOW, write_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel

TEXT_WIDTH = 96
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.42.1",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
}
"""DDPM's training noise; DDIM is only what a pipeline samples with unless told otherwise."""
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def new_unet(channels: int) -> UNet2DConditionModel:
    """3.5 M weights.  No attention at 16 x 16: 1.4 times the time, and little gained at this size (model card)."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(56, 80, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )


def new_text_encoder(vocabulary: dict[str, int]) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=WINDOW,
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary[START],
            eos_token_id=vocabulary[END],
            pad_token_id=vocabulary[END],
        )
    )


def save_text_encoder(encoder: CLIPTextModel, folder: Path) -> None:
    """Under the published names: transformers 5 leaves the `text_model.` prefix out, other readers need it."""
    encoder.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    vocabulary = write_tokenizer(args.out / "tokenizer")
    vae = AutoencoderKL.from_pretrained(args.vae)
    unet, encoder = new_unet(vae.config.latent_channels), new_text_encoder(vocabulary)
    unet.save_pretrained(args.out / "unet")
    save_text_encoder(encoder, args.out / "text_encoder")
    vae.save_pretrained(args.out / "vae")
    (args.out / "scheduler").mkdir(exist_ok=True)
    for name, value in (("scheduler/scheduler_config.json", SCHEDULER), ("model_index.json", INDEX)):
        (args.out / name).write_text(json.dumps(value, indent=2) + "\n")
    for name, part in (("unet", unet), ("text encoder", encoder)):
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M weights")


if __name__ == "__main__":
    main()
