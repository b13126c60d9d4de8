"""Configurations in diffusers' layout for a Stable Diffusion XL, a Stable Diffusion 3 or a Flux of which there are
weights alone: what shapes tell, and beyond that the published repositories' values."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..formats.clip_vocabulary import SIZE
from ..formats.flux import FluxShapes
from ..formats.ldm_geometry import TextShapes, UNetShapes, VAEShapes
from ..formats.sd3 import SD3Shapes
from ..formats.single_files import Layout
from ..formats.t5_names import T5Shapes
from ..formats.t5_vocabulary import PADDED
from .ldm_config import LIBRARY, Facts
from .ldm_folder import text_json, unet_json, vae_json

HEAD = 64
"""Channels of a head, everywhere but in Flux's transformer."""
FLUX_HEAD, FLUX_AXES = 128, [16, 56, 56]
LATENTS = {"Stable Diffusion XL": (0.13025, None), "Stable Diffusion 3": (1.5305, 0.0609), "Flux": (0.3611, 0.1159)}
"""Layout's name -> scale and shift of its latents."""
_CLASSES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "sd3": ["diffusers", "SD3Transformer2DModel"],
    "flux": ["diffusers", "FluxTransformer2DModel"],
    "t5": ["transformers", "T5EncoderModel"],
}


def pipeline_json(layout: Layout, present: set[str], scheduler: str) -> dict[str, Any]:
    """model_index.json; what is not present is null."""
    values: dict[str, Any] = {"_class_name": layout.pipeline, "_diffusers_version": LIBRARY}
    for part in layout.parts:
        clip = ["transformers", "CLIPTextModelWithProjection" if part.projects else "CLIPTextModel"]
        values[part.component] = _CLASSES.get(part.kind, clip) if part.component in present else [None, None]
        if (tokenizer := part.component.replace("text_encoder", "tokenizer")) != part.component:
            kind = ["transformers", "T5TokenizerFast" if part.kind == "t5" else "CLIPTokenizer"]
            values[tokenizer] = kind if part.component in present else [None, None]
    values |= {"feature_extractor": [None, None], "image_encoder": [None, None], "scheduler": ["diffusers", scheduler]}
    if layout.name == "Stable Diffusion XL":
        values["force_zeros_for_empty_prompt"] = True
    return dict(sorted(values.items()))


def xl_unet_json(unet: UNetShapes, facts: Facts) -> dict[str, Any]:
    """unet/config.json of a Stable Diffusion XL, whose labels are six sizes of 256 numbers and the pooled words."""
    assert unet.labels is not None, "a UNet that is told sizes"
    return unet_json(unet, facts) | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": unet.labels,
        "sample_size": 128,
    }


def latents_json(vae: VAEShapes, layout: Layout, facts: Facts) -> dict[str, Any]:
    """vae/config.json of models whose autoencoder is not Stable Diffusion 1's."""
    scale, shift = LATENTS[layout.name]
    values = vae_json(vae, facts) | {"force_upcast": True, "sample_size": 1024, "scaling_factor": scale}
    if shift is not None:
        values["shift_factor"] = shift
    if not vae.geometry.quantized:
        values |= {"use_quant_conv": False, "use_post_quant_conv": False}
    return values


def clip_json(text: TextShapes, quick: bool, numbers: str, what: str) -> dict[str, Any]:
    """config.json of a CLIP text encoder.

    Args:
        quick: OpenAI's, whose activation is quick_gelu; otherwise OpenCLIP's.
    """
    if text.width % HEAD or text.vocabulary != SIZE:
        raise ConfigError(f"{what}: a text encoder of width {text.width} and {text.vocabulary} words is {unknown()}")
    known = Facts(not quick, "epsilon", HEAD, text.width // HEAD, quick)
    values = text_json(text, known, numbers) | {"projection_dim": text.projection or text.width}
    return values | ({"architectures": ["CLIPTextModelWithProjection"]} if text.projection else {})


def t5_json(text: T5Shapes, numbers: str, what: str) -> dict[str, Any]:
    """config.json of a T5 v1.1 encoder."""
    if text.vocabulary != PADDED:
        raise ConfigError(f"{what}: a T5 of {text.vocabulary} words is {unknown()}")
    return {
        "architectures": ["T5EncoderModel"],
        "d_ff": text.wide,
        "d_kv": text.inner // text.heads,
        "d_model": text.width,
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new",
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "num_decoder_layers": text.layers,
        "num_heads": text.heads,
        "num_layers": text.layers,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": text.buckets,
        "tie_word_embeddings": False,
        "torch_dtype": numbers,
        "use_cache": False,
        "vocab_size": text.vocabulary,
    }


def sd3_json(shapes: SD3Shapes, what: str) -> dict[str, Any]:
    """transformer/config.json of a Stable Diffusion 3 or 3.5."""
    head = shapes.head or HEAD
    if shapes.width % head:
        raise ConfigError(f"{what}: a transformer of width {shapes.width} is {unknown()}")
    values: dict[str, Any] = {
        "_class_name": "SD3Transformer2DModel",
        "_diffusers_version": LIBRARY,
        "attention_head_dim": head,
        "caption_projection_dim": shapes.width,
        "in_channels": shapes.in_channels,
        "joint_attention_dim": shapes.words,
        "num_attention_heads": shapes.width // head,
        "num_layers": shapes.geometry.layers,
        "out_channels": shapes.out_channels,
        "patch_size": shapes.patch,
        "pooled_projection_dim": shapes.pooled,
        "pos_embed_max_size": shapes.positions,
        "sample_size": 128,
    }
    newer = {"dual_attention_layers": list(shapes.geometry.dual), "qk_norm": "rms_norm"}
    return values | (newer if shapes.geometry.normalized else {})


def flux_json(shapes: FluxShapes, what: str) -> dict[str, Any]:
    """transformer/config.json of a Flux."""
    if shapes.head != FLUX_HEAD or shapes.width % FLUX_HEAD:
        raise ConfigError(f"{what}: a transformer of width {shapes.width}, heads of {shapes.head}, is {unknown()}")
    if shapes.in_channels != shapes.out_channels:
        raise ConfigError(
            f"{what}: its transformer takes {shapes.in_channels} channels and answers {shapes.out_channels}: a Flux "
            "for inpainting or control, which is not supported"
        )
    return {
        "_class_name": "FluxTransformer2DModel",
        "_diffusers_version": LIBRARY,
        "attention_head_dim": shapes.head,
        "axes_dims_rope": FLUX_AXES,
        "guidance_embeds": shapes.geometry.guided,
        "in_channels": shapes.in_channels,
        "joint_attention_dim": shapes.words,
        "num_attention_heads": shapes.width // shapes.head,
        "num_layers": shapes.geometry.double,
        "num_single_layers": shapes.geometry.single,
        "patch_size": 1,
        "pooled_projection_dim": shapes.pooled,
    }


def flow_json(guided: bool | None) -> dict[str, Any]:
    """scheduler/scheduler_config.json of flow matching: Stable Diffusion 3's (None), Flux dev's or schnell's."""
    values: dict[str, Any] = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": LIBRARY,
        "num_train_timesteps": 1000,
        "shift": 1.0 if guided is False else 3.0,
    }
    sizes = {"base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15}
    return values | ({} if guided is None else sizes | {"use_dynamic_shifting": guided})


def euler_json(prediction: str, without_signal: bool) -> dict[str, Any]:
    """scheduler/scheduler_config.json of a Stable Diffusion XL.

    Args:
        without_signal: whether its last noise level has none left (zero terminal SNR).
    """
    values: dict[str, Any] = {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": LIBRARY,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "use_karras_sigmas": False,
    }
    return values | ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if without_signal else {})


def edm_json() -> dict[str, Any]:
    """scheduler/scheduler_config.json of Playground 2.5."""
    return {
        "_class_name": "EDMDPMSolverMultistepScheduler",
        "_diffusers_version": LIBRARY,
        "algorithm_type": "dpmsolver++",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "sigma_data": 0.5,
        "sigma_max": 80.0,
        "sigma_min": 0.002,
    }


def unknown() -> str:
    """What to say of shapes that are no published model's."""
    return "no published model's; give original_config, the folder in diffusers' layout of a model like it"
