"""LoRA files against the readers and writers of others that are installed here: diffusers and peft."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from dreamcore.formats.kohya_lora import kohya_arrays
from dreamcore.formats.lora import DOWN, UP, factors_for, published_name, read_lora, save_published, write_lora
from dreamcore.formats.lora_names import dotted
from dreamcore.formats.lora_pair import Pair, Pairs
from dreamcore.formats.lora_readers import layers_found
from dreamcore.io.names import LORA_FILE

from ..support import needs

pytestmark = needs.torch

Shapes = dict[str, dict[str, tuple[int, ...]]]
PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd3.5": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
TRAINED = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj", "add_q_proj", "add_k_proj",
           "add_v_proj", "to_add_out", "proj_mlp", "ff.net.2", "norm1_context.linear")  # fmt: skip
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj")


def layers_of(network: Any) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of the weight, of each layer that can have factors."""
    import torch

    clip = type(network).__name__.startswith("CLIP") and not hasattr(network, "text_model")
    return {
        f"text_model.{name}" if clip and name != "text_projection" else name: tuple(module.weight.shape)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and ".base_layer" not in name and "lora_" not in name
    }


@cache
def published_models() -> dict[str, Shapes]:
    """The published models' layers, of no numbers: their structure is the true one, their widths are not."""
    import torch
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    def clip(layers: int) -> dict[str, tuple[int, ...]]:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": layers}
        return layers_of(CLIPTextModel(CLIPTextConfig(**sizes)))

    def mmdit(**more: Any) -> dict[str, tuple[int, ...]]:
        sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "caption_projection_dim": 32, "num_layers": 4}
        return layers_of(SD3Transformer2DModel(joint_attention_dim=32, pooled_projection_dim=32, **sizes, **more))

    down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    with torch.device("meta"):
        sd = {"cross_attention_dim": 32, "norm_num_groups": 8, "block_out_channels": (32, 64, 96, 96)}
        xl = UNet2DConditionModel(
            cross_attention_dim=32,
            norm_num_groups=8,
            block_out_channels=(32, 64, 96),
            down_block_types=("DownBlock2D", down, down),
            up_block_types=(up, up, "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=64,
        )
        flux = FluxTransformer2DModel(
            num_layers=3, num_single_layers=12, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32,
            pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
        )  # fmt: skip
        big = {"text_encoder": clip(12), "text_encoder_2": clip(32)}
        newer = {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}
        return {
            "sd1": {"unet": layers_of(UNet2DConditionModel(**sd)), "text_encoder": clip(12)},
            "sd2": {
                "unet": layers_of(UNet2DConditionModel(use_linear_projection=True, **sd)), "text_encoder": clip(23)
            },
            "sdxl": {"unet": layers_of(xl), **big},
            "sd3": {"transformer": mmdit(), **big},
            "sd3.5": {"transformer": mmdit(**newer), **big},
            "flux": {"transformer": layers_of(flux), "text_encoder": clip(12)},
        }  # fmt: skip


def drawn(shapes: Shapes, endings: tuple[str, ...] = ("",), rank: int = 2, scale: float = 2.0) -> Pairs:
    """Random factors of the layers whose names end so."""
    draw = np.random.default_rng(1)
    pairs: Pairs = {}
    for component, layers in shapes.items():
        for name, shape in layers.items():
            if name != "text_projection" and name.endswith(endings):
                down = draw.standard_normal((rank, *shape[1:])).astype(np.float32)
                up = draw.standard_normal((shape[0], rank, *(1 for _ in shape[2:]))).astype(np.float32)
                pairs[component, name] = Pair(down, up, scale)
    return pairs


def product(pair: Pair) -> Any:
    up, down = (f.reshape(len(f), -1).astype(np.float64) for f in (pair.up, pair.down))
    return (up @ down * pair.scale).reshape(len(up), *pair.down.shape[1:])


@pytest.mark.parametrize("family", PIPELINES)
def test_every_layer_of_a_published_model_is_written_found_and_read_back(family: str, tmp_path: Path) -> None:
    shapes = published_models()[family]
    assert all(dotted(name.replace(".", "_")) == name for layers in shapes.values() for name in layers)
    pairs = drawn(shapes)
    arrays = kohya_arrays(pairs, PIPELINES[family])
    write_lora(tmp_path / "kohya.safetensors", arrays)
    for read in (read_lora(tmp_path / "kohya.safetensors"), factors_for(tmp_path / "kohya.safetensors", shapes)):
        assert read.keys() == pairs.keys()
        for key, pair in pairs.items():
            assert read[key].rank == pair.rank
            assert np.array_equal(read[key].down, pair.down), key
            assert np.allclose(read[key].up * read[key].scale, pair.up * pair.scale, rtol=1e-6, atol=0), key
    found = layers_found(arrays, PIPELINES[family], shapes)
    modules = {name.split(".")[0] for name in arrays}
    images = {name for name in modules if name.startswith("lora_unet")}
    assert found["ComfyUI"] == found["Forge"] == (len(modules), len(modules))
    assert found.get("A1111") == {"flux": None, "sd3": (len(images),) * 2, "sd3.5": (len(images),) * 2}.get(
        family, (len(modules), len(modules))
    )
    ours = [published_name(f"{c}.{layer}{ending}") for c, layer in pairs for ending in (DOWN, UP)]
    assert layers_found(ours, PIPELINES[family], shapes)["diffusers"] == (len(pairs), len(pairs))


def test_names_that_no_program_looks_for_are_not_counted() -> None:
    """diffusers' names of SD 1: ComfyUI finds the text encoder's layers, A1111 none."""
    shapes = published_models()["sd1"]
    pairs = drawn(shapes, TRAINED[:8])  # the attentions' alone
    ours = [published_name(f"{c}.{layer}{ending}") for c, layer in pairs for ending in (DOWN, UP)]
    found = layers_found(ours, PIPELINES["sd1"], shapes)
    texts = sum(component == "text_encoder" for component, _ in pairs)
    assert found["ComfyUI"] == (texts, len(pairs)) and 0 < texts < len(pairs)
    assert found["A1111"] == (0, len(pairs))
    kohya = [name.replace("attn1_to_q", "attn1_to_x") for name in kohya_arrays(pairs, PIPELINES["sd1"])]
    short = layers_found(kohya, PIPELINES["sd1"], shapes)
    assert {short[reader] for reader in ("ComfyUI", "Forge", "A1111")} == {(len(pairs) - 16, len(pairs))}


@pytest.fixture(scope="module")
def models(tiny_model: Path, tiny_v_model: Path, family_models: Callable[[str], Path]) -> Callable[[str], Path]:
    own = {"sd1": tiny_model, "sd2": tiny_v_model}
    return lambda family: own[family] if family in own else family_models(family)


def loaded(model: Path) -> tuple[Any, dict[str, Any]]:
    """diffusers' pipeline and its networks that LoRA is for."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(model)
    names = ("unet", "transformer", "text_encoder", "text_encoder_2")
    networks = {name: getattr(pipeline, name) for name in names if getattr(pipeline, name, None) is not None}
    return pipeline, {name: network for name, network in networks.items() if "T5" not in type(network).__name__}


def applied(networks: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """What diffusers adds to each layer, by component and published layer."""
    from peft.tuners.lora import LoraLayer

    found = {}
    for component, network in networks.items():
        prefix = "text_model." if component.startswith("text") and not hasattr(network, "text_model") else ""
        for name, module in network.named_modules():
            if isinstance(module, LoraLayer):
                (adapter,) = module.lora_A
                found[component, prefix + name] = module.get_delta_weight(adapter).detach().numpy()
    return found


def same(found: Mapping[tuple[str, str], Any], pairs: Pairs) -> None:
    assert found.keys() == pairs.keys()
    for key, pair in pairs.items():
        wanted = product(pair)
        assert np.abs(found[key] - wanted).max() <= 1e-5 * np.abs(wanted).max(), key


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sd3", "flux"])
def test_diffusers_counts_the_strength_of_our_files_once(
    family: str, models: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its own names with alpha 8 of rank 2, and, where it converts them, kohya's."""
    pipeline, networks = loaded(models(family))
    shapes = {name: layers_of(network) for name, network in networks.items()}
    endings = TRAINED if family in ("sd3", "flux") else (*TRAINED, *CONVOLUTIONS)
    pairs = drawn(shapes, endings, scale=4.0)
    per_block = 1 if family == "sdxl" else 2  # the small model's
    write_lora(tmp_path / "kohya.safetensors", kohya_arrays(pairs, PIPELINES[family], per_block))
    read = factors_for(tmp_path / "kohya.safetensors", shapes)
    same({key: product(pair) for key, pair in read.items()}, pairs)
    factors = {f"{c}.{n}{end}": f for (c, n), p in pairs.items() for end, f in ((DOWN, p.down), (UP, p.up))}
    save_published(factors, 4.0, tmp_path)
    pipeline.load_lora_weights(tmp_path / LORA_FILE)
    same(applied(networks), pairs)
    if family in ("sd1", "sd2", "sdxl"):
        pipeline.unload_lora_weights()
        pipeline.load_lora_weights(tmp_path / "kohya.safetensors")
        same(applied(networks), pairs)


def test_the_header_tells_the_true_rank_and_alpha_and_peft_that_all_is_folded(tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    _, networks = loaded(tiny_model)
    unet = networks["unet"]
    pairs = drawn({"unet": layers_of(unet)}, TRAINED, scale=2.0)
    factors = {f"{c}.{n}{end}": f for (c, n), p in pairs.items() for end, f in ((DOWN, p.down), (UP, p.up))}
    save_published(factors, 2.0, tmp_path)
    with safe_open(tmp_path / LORA_FILE, "np") as opened:
        said = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert (said["unet.r"], said["unet.lora_alpha"]) == (2, 4)
    own = {name.removeprefix("unet."): value for name, value in said.items()}
    inject_adapter_in_model(LoraConfig(**own), unet)
    import torch

    tensors = {n: torch.from_numpy(a) for n, a in load_file(tmp_path / LORA_FILE).items()}
    named = {
        n.removeprefix("unet.").replace("lora.down", "lora_A").replace("lora.up", "lora_B"): t
        for n, t in tensors.items()
    }
    assert not set_peft_model_state_dict(unet, named).unexpected_keys
    same(applied({"unet": unet}), pairs)
    again = read_lora(tmp_path / LORA_FILE)
    for key, pair in pairs.items():
        np.testing.assert_allclose(product(again[key]), product(pair), rtol=1e-6)


def test_fluxs_stacked_layers_are_those_that_diffusers_takes_apart(tmp_path: Path) -> None:
    """At the published width, which its converter takes for granted; it reads kohya's file, and so does this."""
    from diffusers import FluxPipeline

    width = 3072
    layers = {
        "transformer_blocks.0.attn.to_q": (width, width),
        "transformer_blocks.0.attn.to_v": (width, width),
        "transformer_blocks.0.attn.add_k_proj": (width, width),
        "single_transformer_blocks.0.attn.to_k": (width, width),
        "single_transformer_blocks.0.proj_mlp": (4 * width, width),
        "single_transformer_blocks.1.attn.to_q": (width, width),
        "single_transformer_blocks.1.proj_out": (width, 5 * width),
    }
    pairs = drawn({"transformer": layers}, rank=1, scale=0.5)
    write_lora(tmp_path / "kohya.safetensors", kohya_arrays(pairs, "FluxPipeline"))
    theirs, _ = FluxPipeline.lora_state_dict(str(tmp_path / "kohya.safetensors"), return_alphas=True)
    read = read_lora(tmp_path / "kohya.safetensors")
    for layer in sorted({name.rpartition(".lora_")[0] for name in theirs}):
        down, up = (theirs[f"{layer}.lora_{end}.weight"].numpy() for end in "AB")
        wanted = read.get(("transformer", layer.removeprefix("transformer.")))
        mine = 0 * up[:5] @ down[:, :9] if wanted is None else wanted.up[:5] @ wanted.down[:, :9] * wanted.scale
        np.testing.assert_allclose(up[:5] @ down[:, :9], mine, rtol=1e-5, atol=1e-9, err_msg=layer)
    for key, pair in pairs.items():
        mine = read[key].up[-3:] @ read[key].down[:, -3:] * read[key].scale
        np.testing.assert_allclose(mine, pair.up[-3:] @ pair.down[:, -3:] * pair.scale, rtol=1e-6)
