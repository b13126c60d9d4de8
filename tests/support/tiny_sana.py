"""A small random SANA, laid out on disk as the published ones: Gemma 2, AutoencoderDC, linear attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamcore.families.sana import INSTRUCTION

from .tiny import write_index, write_json
from .tiny_language_models import write_gemma_tokenizer

SOLVED = {
    "_class_name": "DPMSolverMultistepScheduler",
    "_diffusers_version": "0.42.1",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "final_sigmas_type": "zero",
    "flow_shift": 3.0,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "rescale_betas_zero_snr": False,
    "solver_order": 2,
    "solver_type": "midpoint",
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "use_beta_sigmas": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": True,
    "use_karras_sigmas": False,
    "variance_type": None,
}
"""The published models' own."""


def write_sana(folder: Path, *, scheduler: dict[str, Any] | None = None, size: int = 8) -> Path:
    """SANA: latents of 4 × 4 pixels.

    Args:
        scheduler: its configuration in the place of the published models'.
        size: side of the latents that it was made for.
    """
    import torch
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(21)
        transformer = SanaTransformer2DModel(
            sample_size=size,
            in_channels=8,
            out_channels=8,
            num_layers=2,
            num_attention_heads=4,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=32,
            mlp_ratio=1.0,
        )
        with torch.no_grad():  # answers of about the noise's size, that listen to the words
            for name, weight in transformer.named_parameters():
                if "attn2.to_v" in name or "attn2.to_out.0.weight" in name:
                    weight *= 2.0
        transformer.save_pretrained(folder / "transformer")
        kinds = ("ResBlock", "ResBlock", "EfficientViTBlock")
        vae = AutoencoderDC(
            latent_channels=8,
            attention_head_dim=8,
            encoder_block_types=kinds,
            decoder_block_types=kinds,
            encoder_block_out_channels=(8, 16, 16),
            decoder_block_out_channels=(8, 16, 16),
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), (5,)),
            decoder_qkv_multiscales=((), (), (5,)),
            downsample_block_type="Conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        )
        with torch.no_grad():  # latents of about unit variance once scaled
            vae.encoder.conv_out.weight *= 3.0
            vae.decoder.conv_out.weight *= 3.0
        vae.save_pretrained(folder / "vae")
        tokens = write_gemma_tokenizer(folder / "tokenizer", INSTRUCTION)
        write_gemma(folder / "text_encoder", tokens)
    scheduler = scheduler or SOLVED
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    words = {"text_encoder": "Gemma2Model", "tokenizer": "GemmaTokenizerFast"}
    classes = {"transformer": "SanaTransformer2DModel", "vae": "AutoencoderDC", "scheduler": scheduler["_class_name"]}
    write_index(folder, "SanaPipeline", classes | words)
    return folder


def write_gemma(folder: Path, tokens: int) -> None:
    """Gemma 2 without its head, 32 wide."""
    import torch
    from transformers import Gemma2Config, Gemma2Model

    encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=tokens,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=8192,
            sliding_window=4096,
        )
    )
    with torch.no_grad():
        encoder.get_input_embeddings().weight.normal_(0.0, 0.5)
    encoder.save_pretrained(folder)
