"""The JSON files of a Stable Diffusion's folder in diffusers' layout, as the published repositories have them."""

from __future__ import annotations

from typing import Any

from ..formats.ldm_geometry import TextShapes, UNetShapes, VAEShapes
from .ldm_config import LIBRARY, Facts

PIPELINE = "StableDiffusionPipeline"


def index_json(facts: Facts) -> dict[str, Any]:
    """model_index.json, without a safety checker."""
    return {
        "_class_name": PIPELINE,
        "_diffusers_version": LIBRARY,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler_class(facts)],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def scheduler_class(facts: Facts) -> str:
    """The sampler of the published repository: of those that predict v, DDIM."""
    return "DDIMScheduler" if facts.prediction == "v_prediction" else "PNDMScheduler"


def unet_json(unet: UNetShapes, facts: Facts) -> dict[str, Any]:
    """unet/config.json; `attention_head_dim` counts heads, as diffusers calls it there."""
    geometry = unet.geometry
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in geometry.attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(geometry.attention)]
    depth = geometry.depth if isinstance(geometry.depth, int) else list(geometry.depth)
    more = {"transformer_layers_per_block": depth} if depth != 1 else {}
    second = {"dual_cross_attention": False, "only_cross_attention": False, "use_linear_projection": True}
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": LIBRARY,
        "act_fn": "silu",
        "attention_head_dim": facts.heads,
        "block_out_channels": list(geometry.channels),
        "center_input_sample": False,
        "cross_attention_dim": unet.context,
        "down_block_types": down,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": unet.in_channels,
        "layers_per_block": geometry.layers,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": unet.out_channels,
        "sample_size": _pixels(facts) // 8,
        "up_block_types": up,
        **(second if unet.linear else {}),
        **({"upcast_attention": True} if facts.upcast else {}),
        **more,
    }


def vae_json(vae: VAEShapes, facts: Facts) -> dict[str, Any]:
    """vae/config.json."""
    geometry = vae.geometry
    levels = len(geometry.channels)
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": LIBRARY,
        "act_fn": "silu",
        "block_out_channels": list(geometry.channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": vae.in_channels,
        "latent_channels": vae.latent_channels,
        "layers_per_block": geometry.layers,
        "norm_num_groups": 32,
        "out_channels": vae.out_channels,
        "sample_size": _pixels(facts),
        "scaling_factor": facts.scaling,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def text_json(text: TextShapes, facts: Facts, numbers: str) -> dict[str, Any]:
    """text_encoder/config.json.

    Args:
        numbers: the type that holds all of its weights; MindONE's tables of SD 2 are of float16, the rest of float32,
            and transformers would take the first that it meets for all.
    """
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu" if facts.quick_gelu else "gelu",
        "hidden_size": text.width,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": text.inner,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": text.window,
        "model_type": "clip_text_model",
        "num_attention_heads": facts.text_heads,
        "num_hidden_layers": text.layers,
        "pad_token_id": 1,
        "projection_dim": 512 if facts.second else 768,
        "torch_dtype": numbers,
        "vocab_size": text.vocabulary,
    }


def scheduler_json(facts: Facts) -> dict[str, Any]:
    """scheduler/scheduler_config.json; LDM's "linear" is diffusers' "scaled_linear": linear in √β."""
    return {
        "_class_name": scheduler_class(facts),
        "_diffusers_version": LIBRARY,
        "beta_end": facts.beta_end,
        "beta_schedule": "scaled_linear",
        "beta_start": facts.beta_start,
        "clip_sample": False,
        "num_train_timesteps": facts.timesteps,
        "prediction_type": facts.prediction,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    }


def _pixels(facts: Facts) -> int:
    """Side of the images of training: of published models, those that predict v saw 768, all others 512."""
    return 768 if facts.prediction == "v_prediction" else 512
