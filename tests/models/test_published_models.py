"""What single files of published models come to: the values of the published repositories' configurations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.single_files import contents, recognized
from dreamcore.formats.tensors import Entry
from dreamcore.io.names import INDEX
from dreamcore.models.from_original import Files, Said, known_files
from dreamcore.models.original_geometry import shapes_of

from ..support.single_files import MODELS, SMALL, entry, published

SCHEDULER, UNET, TRANSFORMER = "scheduler/scheduler_config.json", "unet/config.json", "transformer/config.json"
CLIP_L = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "hidden_act": "quick_gelu"}
CLIP_G = {"hidden_size": 1280, "num_attention_heads": 20, "num_hidden_layers": 32, "hidden_act": "gelu"}
CLIP_G |= {"projection_dim": 1280, "intermediate_size": 5120}
T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128}
SD3 = {"attention_head_dim": 64, "num_attention_heads": 24, "num_layers": 24, "joint_attention_dim": 4096}
SD3 |= {"caption_projection_dim": 1536, "pooled_projection_dim": 2048, "in_channels": 16, "out_channels": 16}
FLUX = {"attention_head_dim": 128, "num_attention_heads": 24, "num_layers": 19, "num_single_layers": 38}
FLUX |= {"in_channels": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 768, "patch_size": 1}
OF_16 = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "force_upcast": True}
# stable-diffusion-v1-5, stable-diffusion-2-1, -xl-base-1.0, -3-medium, -3.5-medium, FLUX.1-dev and FLUX.1-schnell
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {
        UNET: {"attention_head_dim": 8, "cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]},
        "text_encoder/config.json": CLIP_L,
        SCHEDULER: {"_class_name": "PNDMScheduler", "prediction_type": "epsilon"},
    },
    "sd2": {
        UNET: {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True},
        "text_encoder/config.json": {"hidden_size": 1024, "num_hidden_layers": 23, "hidden_act": "gelu"},
        SCHEDULER: {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    },
    "sdxl": {
        UNET: {
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "transformer_layers_per_block": [1, 2, 10],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "sample_size": 128,
        },
        "vae/config.json": {"scaling_factor": 0.13025, "force_upcast": True, "latent_channels": 4},
        "text_encoder/config.json": CLIP_L,
        "text_encoder_2/config.json": CLIP_G,
        SCHEDULER: {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "steps_offset": 1},
        INDEX: {"force_zeros_for_empty_prompt": True},
    },
    "sd3": {
        TRANSFORMER: SD3 | {"pos_embed_max_size": 192},
        "vae/config.json": OF_16 | {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        "text_encoder/config.json": CLIP_L | {"projection_dim": 768},
        "text_encoder_2/config.json": CLIP_G,
        "text_encoder_3/config.json": T5,
        SCHEDULER: {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    },
    "sd35": {
        TRANSFORMER: SD3 | {"pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": list(range(13))},
    },
    "flux": {
        TRANSFORMER: FLUX | {"guidance_embeds": True, "axes_dims_rope": [16, 56, 56]},
        "vae/config.json": OF_16 | {"scaling_factor": 0.3611, "shift_factor": 0.1159},
        "text_encoder/config.json": CLIP_L,
        "text_encoder_2/config.json": T5,
        SCHEDULER: {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
    },
    "schnell": {
        TRANSFORMER: FLUX | {"guidance_embeds": False},
        SCHEDULER: {"shift": 1.0, "use_dynamic_shifting": False},
    },
}


def files_of(tensors: dict[str, Entry], version: str | None = None, **metadata: str) -> Files:
    layout = recognized(tensors, "x")
    found = contents(tensors, layout, "x")
    shapes = {p.component: shapes_of(p, found.parts[p.component], "x") for p in layout.parts}
    modelspec = {f"modelspec.{name}": value for name, value in metadata.items()}
    return known_files(found, shapes, dict.fromkeys(shapes, "float16"), Said("x", None, version, modelspec))


@pytest.mark.parametrize("name", MODELS)
def test_configurations_are_the_published_ones(name: str) -> None:
    layout, tensors = published(name)
    assert recognized(tensors, "x") == layout
    files = files_of(tensors, "2.1-v" if name == "sd2" else None)
    assert files[INDEX]["_class_name"] == layout.pipeline
    for file, wanted in PUBLISHED[name].items():
        assert files[file] == files[file] | wanted, file
    weights = {file.partition("/")[0] for file in files} - {INDEX, "scheduler"}
    assert weights == {part.component for part in layout.parts}


def test_what_a_file_says_that_it_predicts() -> None:
    _, second = published("sd2")
    with pytest.raises(ConfigError, match=r"x: .*do not tell whether it predicts noise or v; give sd_version"):
        files_of(second)
    for told, wanted in (("v", "v_prediction"), ("epsilon", "epsilon")):
        assert files_of(second, prediction_type=told)[SCHEDULER]["prediction_type"] == wanted
    assert files_of(second, architecture="stable-diffusion-v2-768-v")[SCHEDULER]["prediction_type"] == "v_prediction"
    assert files_of(second, architecture="stable-diffusion-v2-512/lora")[SCHEDULER]["prediction_type"] == "epsilon"
    assert files_of(second, "2.1", prediction_type="v")[SCHEDULER]["prediction_type"] == "epsilon", "who runs it knows"
    _, large = published("sdxl")
    flags = {"v_pred": entry(0, dtype="F32"), "ztsnr": entry(0, dtype="F32")}
    schedule = files_of(large | flags)[SCHEDULER]
    assert (schedule["prediction_type"], schedule["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert files_of(large)[SCHEDULER]["prediction_type"] == "epsilon"
    with pytest.raises(ConfigError, match=r"sd_version: 2.1 was given; x holds a Stable Diffusion XL"):
        files_of(large, "2.1")


def test_playground() -> None:
    _, large = published("sdxl")
    latents = {"edm_mean": Entry.of(np.float32([1, 2, 3, 4])), "edm_std": Entry.of(np.full(4, 5, np.float32))}
    files = files_of(large | latents)
    assert files[SCHEDULER]["_class_name"] == "EDMDPMSolverMultistepScheduler"
    wanted = {"latents_mean": [1, 2, 3, 4], "latents_std": [5, 5, 5, 5], "scaling_factor": 0.5}
    assert files["vae/config.json"] == files["vae/config.json"] | wanted


UNKNOWN = {
    "heads of a UNet": ("sdxl", "model.diffusion_model.input_blocks.7.0.in_layers.2.weight", (1000, 1, 3, 3)),
    "words of CLIP": (
        "flux",
        "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight",
        (9, 768),
    ),
    "words of T5": ("flux", "text_encoders.t5xxl.transformer.shared.weight", (100, 4096)),
    "width of SD 3": ("sd3", "model.diffusion_model.x_embedder.proj.weight", (1000, 16, 2, 2)),
    "heads of Flux": ("flux", "model.diffusion_model.double_blocks.0.img_attn.norm.query_norm.scale", (16,)),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_shapes_that_no_published_model_has(what: str) -> None:
    name, tensor, shape = UNKNOWN[what]
    tensors = published(name)[1] | {tensor: entry(*shape)}
    if name == "sdxl":
        tensors[tensor.replace(".7.", ".8.")] = entry(*shape)
    with pytest.raises(ConfigError, match=r"^x: a .* is no published model's; give original_config, the folder"):
        files_of(tensors)


def test_a_flux_for_inpainting() -> None:
    tensors = published("flux")[1] | {"model.diffusion_model.img_in.weight": entry(3072, 384)}
    with pytest.raises(ConfigError, match=r"takes 384 channels and answers 64: a Flux for inpainting or control"):
        files_of(tensors)


def test_the_refiner_and_distilled_unets() -> None:
    _, large = published("sdxl")
    words = "conditioner.embedders.0.model.ln_final.weight"
    with pytest.raises(ConfigError, match=r"x: is the refiner of Stable Diffusion XL"):
        recognized(large | {words: entry(*SMALL)}, "x")
    middle = [name for name in large if ".middle_block.1.transformer_blocks.9." in name]
    distilled = {name: value for name, value in large.items() if name not in middle}
    with pytest.raises(ConfigError, match=r"its middle has 9 blocks, its last level 10"):
        files_of(distilled)
