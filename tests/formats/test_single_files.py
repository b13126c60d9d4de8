"""Which model a file holds, told by names and shapes; what has no place in a folder; what is no model."""

from __future__ import annotations

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.flux import FluxGeometry, flux_names
from dreamcore.formats.ldm import CLIP, UNET, VAE, VAEGeometry, text_names, vae_names
from dreamcore.formats.renaming import Names, joined, original_entries, published_entries
from dreamcore.formats.sd3 import SD3Geometry, sd3_names
from dreamcore.formats.single_files import AUTOENCODER, FLUX, SD2, SD3, contents, recognized
from dreamcore.formats.t5_names import t5_names
from dreamcore.formats.tensors import Entry

from ..support.single_files import MODELS, SMALL, entry, published

# The file's name, the published one: from sd3_medium_incl_clips, sd3.5_medium and flux1-dev
SD3_NAMES = {
    "x_embedder.proj.weight": ("pos_embed.proj.weight",),
    "y_embedder.mlp.2.bias": ("time_text_embed.text_embedder.linear_2.bias",),
    "joint_blocks.3.x_block.attn.qkv.weight": tuple(f"transformer_blocks.3.attn.to_{x}.weight" for x in "qkv"),
    "joint_blocks.3.context_block.attn.qkv.bias": tuple(f"transformer_blocks.3.attn.add_{x}_proj.bias" for x in "qkv"),
    "joint_blocks.3.context_block.mlp.fc1.weight": ("transformer_blocks.3.ff_context.net.0.proj.weight",),
    "joint_blocks.12.x_block.attn2.ln_k.weight": ("transformer_blocks.12.attn2.norm_k.weight",),
    "joint_blocks.23.context_block.attn.ln_q.weight": ("transformer_blocks.23.attn.norm_added_q.weight",),
}
FLUX_NAMES = {
    "guidance_in.out_layer.bias": ("time_text_embed.guidance_embedder.linear_2.bias",),
    "double_blocks.18.txt_mod.lin.weight": ("transformer_blocks.18.norm1_context.linear.weight",),
    "double_blocks.0.img_attn.norm.key_norm.scale": ("transformer_blocks.0.attn.norm_k.weight",),
    "double_blocks.0.txt_attn.proj.weight": ("transformer_blocks.0.attn.to_add_out.weight",),
    "single_blocks.37.linear1.bias": (
        *(f"single_transformer_blocks.37.attn.to_{x}.bias" for x in "qkv"),
        "single_transformer_blocks.37.proj_mlp.bias",
    ),
    "single_blocks.0.linear2.weight": ("single_transformer_blocks.0.proj_out.weight",),
}
SD35 = sd3_names(SD3Geometry(24, True, tuple(range(13))))


def test_names_as_they_are_published() -> None:
    assert {old: SD35[old] for old in SD3_NAMES} == SD3_NAMES
    names = flux_names(FluxGeometry())
    assert {old: names[old] for old in FLUX_NAMES} == FLUX_NAMES
    # tensors of sd3_medium's and flux1-dev's files
    assert (len(sd3_names(SD3Geometry())), len(names), len(t5_names(24))) == (491, 780, 219)
    assert "joint_blocks.23.context_block.attn.proj.weight" not in SD35, "the last layer answers for the image alone"


def numbered(names: Names) -> dict[str, Entry]:
    """For each published name a tensor unlike all others; those that lie together in the file fit together."""
    found: dict[str, Entry] = {}
    for number, many in enumerate(names.values()):
        for place, name in enumerate(many):
            rows = 8 if name.endswith(("proj_mlp.weight", "proj_mlp.bias")) else 2
            found[name] = Entry.of(np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2) + 100 * number + 20 * place)
    return found


@pytest.mark.parametrize("names", [SD35, flux_names(FluxGeometry(2, 3)), text_names(2, True, True), t5_names(2)])
def test_there_and_back(names: Names) -> None:
    entries = numbered(names)
    again = published_entries(original_entries(entries, names, "x"), names, "x")
    assert again.keys() == entries.keys()
    assert all(np.array_equal(again[name].read(), entries[name].read()) for name in entries)
    assert all(again[name].shape == entries[name].shape for name in entries)


def test_what_differs_in_more_than_its_name() -> None:
    names = flux_names(FluxGeometry(1, 1))
    entries = numbered(names)
    old = original_entries(entries, names, "x")
    single = "single_transformer_blocks.0."
    fused = old["single_blocks.0.linear1.weight"].read()
    assert fused.shape == (14, 2) and np.array_equal(fused[6:], entries[single + "proj_mlp.weight"].read())
    last = entries["norm_out.linear.weight"].read()
    assert np.array_equal(old["final_layer.adaLN_modulation.1.weight"].read(), last[::-1])
    words = numbered(text_names(1, True, True))
    projection = original_entries(words, text_names(1, True, True), "x")["text_projection"]
    assert np.array_equal(projection.read(), words["text_projection.weight"].read().T)
    with pytest.raises(
        ConfigError, match=r"y: holds tensors of one type and width; there are F32 \(2, 2\), F16 \(2, 2"
    ):
        joined([entry(2, 2, dtype="F32"), entry(2, 2)], "y")


@pytest.mark.parametrize("name", MODELS)
def test_every_name_is_of_a_part(name: str) -> None:
    layout, tensors = published(name)
    found = contents(tensors, recognized(tensors, "x"), "x")
    assert (found.layout, found.left_out, found.missing) == (layout, (), ())
    assert sum(map(len, found.parts.values())) == len(tensors)


EXTRA = {
    "sd1": [
        *("model_ema.decay", "model_ema.diffusion_modelinput_blocks00weight", "betas", "alphas_cumprod"),
        *("sqrt_one_minus_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "log_one_minus_alphas_cumprod"),
        *("posterior_mean_coef1", "logvar", f"{VAE}loss.logvar", f"{CLIP}text_model.embeddings.position_ids"),
    ],
    "sd2": [
        *("cond_stage_model.model.logit_scale", "cond_stage_model.model.text_projection", "alphas_cumprod_prev"),
        "cond_stage_model.model.transformer.resblocks.23.attn.in_proj_weight",
    ],
    "sdxl": [
        *("conditioner.embedders.1.model.logit_scale", "denoiser.sigmas"),
        *("conditioner.embedders.0.transformer.text_model.embeddings.position_ids",),
        "conditioner.embedders.0.transformer.text_projection.weight",
    ],
    "sd3": [
        *("text_encoders.clip_l.logit_scale", "text_encoders.clip_g.transformer.logit_scale"),
        "text_encoders.t5xxl.transformer.encoder.embed_tokens.weight",
    ],
    "flux": ["text_encoders.clip_l.transformer.text_projection.weight", "text_encoders.t5xxl.logit_scale"],
}


@pytest.mark.parametrize("name", EXTRA)
def test_what_has_no_place_is_listed(name: str) -> None:
    layout, tensors = published(name)
    found = contents(tensors | {extra: entry(*SMALL) for extra in EXTRA[name]}, layout, "x")
    assert list(found.left_out) == sorted(EXTRA[name])
    assert found.parts.keys() == contents(tensors, layout, "x").parts.keys()


def test_a_name_of_no_part_is_refused() -> None:
    layout, tensors = published("sdxl")
    with pytest.raises(ConfigError, match="x: unexpected keys: strange.x; expected Stable Diffusion XL's alone"):
        contents(tensors | {"strange.x": entry(1)}, layout, "x")


def test_old_names() -> None:
    layout, tensors = published("sd1")
    old = {name.replace(f"{CLIP}text_model.", CLIP): value for name, value in tensors.items()}
    assert old.keys() != tensors.keys()
    assert contents(old, recognized(old, "x"), "x").parts == contents(tensors, layout, "x").parts
    twice = tensors | {f"{CLIP}final_layer_norm.bias": entry(*SMALL)}
    with pytest.raises(ConfigError, match="final_layer_norm.bias: is there under two names"):
        contents(twice, layout, "x")
    table = "text_encoders.t5xxl.transformer."
    _, flux = published("flux")
    renamed = {name.replace("shared", "encoder.embed_tokens"): value for name, value in flux.items()}
    assert f"{table}encoder.embed_tokens.weight" in renamed
    assert "shared.weight" in contents(renamed, FLUX, "x").parts["text_encoder_2"]


def test_other_beginnings() -> None:
    """Transformers alone without what names begin with; autoencoders as ComfyUI names them; SD 2 as sgm does."""
    for name, layout in (("sd3", SD3), ("flux", FLUX)):
        _, tensors = published(name)
        bare = {key.removeprefix(UNET): value for key, value in tensors.items() if key.startswith(UNET)}
        found = contents(bare, recognized(bare, "x"), "x")
        assert found.layout == layout and list(found.parts) == ["transformer"] and found.missing
        written = layout.parts[1].prefixes[0]
        read = {"vae.": VAE, VAE: "vae."}[written]
        swapped = {key.replace(written, read, 1): value for key, value in tensors.items()}
        assert contents(swapped, layout, "x").parts.keys() == contents(tensors, layout, "x").parts.keys()
    _, second = published("sd2")
    sgm = {n.replace("cond_stage_model.model.", "conditioner.embedders.0.model."): v for n, v in second.items()}
    assert recognized(sgm, "x") == SD2
    unet = {name: value for name, value in second.items() if name.startswith(UNET)}
    assert recognized(unet, "x") == SD2
    alone = {name: entry(*SMALL) for name in vae_names(VAEGeometry())}
    assert recognized(alone, "x") == AUTOENCODER == recognized({VAE + n: v for n, v in alone.items()}, "x")


def _unet(channels: int) -> dict[str, Entry]:
    return {f"{UNET}input_blocks.0.0.weight": entry(320, channels, 3, 3)}


STRANGERS = {
    "kohya's LoRA": ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": entry(4, 4)}, "holds a LoRA"),
    "PEFT's LoRA": (
        {"base_model.model.to_q.lora_A.weight": entry(4, 4)},
        "holds a LoRA, no model .*give it with --lora",
    ),
    "a LoRA of Flux": ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": entry(4)}, "holds a LoRA"),
    "LoHa": ({"lora_te_text_model_encoder.hada_w1_a": entry(4, 4)}, "holds a LoRA"),
    "inpainting": (_unet(9), "takes 9 channels: a model for inpainting"),
    "pix2pix": (_unet(8), "takes 8 channels: a model for edits by instruction"),
    "depth": (_unet(5), "takes 5 channels: a model for depth maps"),
    "ControlNet": ({"control_model.time_embed.0.weight": entry(4, 4)}, "holds a ControlNet"),
    "nf4": ({"double_blocks.0.img_attn.qkv.weight.absmax": entry(4)}, "holds quantized weights"),
    "scaled fp8": ({"model.diffusion_model.double_blocks.0.img_mlp.0.scale_weight": entry(1)}, "quantized weights"),
    "Chroma": ({"distilled_guidance_layer.in_proj.bias": entry(1)}, "a relative of Flux .*which is not supported"),
    "Flux 2": ({"single_stream_modulation.lin.weight": entry(1)}, "a relative of Flux"),
    "CosXL": (_unet(4) | {"edm_vpred.sigma_max": entry(1)}, "continuous v-prediction"),
    "textual inversion": ({"emb_params": entry(4, 768)}, "a textual inversion"),
    "diffusers' UNet": ({"down_blocks.0.resnets.0.conv1.weight": entry(4, 4)}, "one network .* give the folder"),
    "diffusers' VAE": ({"encoder.down_blocks.0.resnets.0.conv1.weight": entry(4)}, "one network of a model"),
    "a text encoder": ({"text_model.final_layer_norm.bias": entry(4)}, "holds a text encoder alone"),
    "something else": ({"layer.0": entry(4), "a.b": entry(4)}, "is no model that is known: .* its first name: 'a.b'"),
    "nothing": ({}, "is no model that is known"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_what_is_no_model_is_named(what: str) -> None:
    tensors, reason = STRANGERS[what]
    with pytest.raises(ConfigError, match=f"^x: .*{reason}"):
        recognized(tensors, "x")
