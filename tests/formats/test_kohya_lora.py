"""LoRA in kohya's names: numbers worked by hand, precision, headers, and what is one layer there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from dreamcore.errors import ConfigError, RunError
from dreamcore.formats.kohya_lora import kohya_arrays
from dreamcore.formats.lora import read_lora, save_published, write_lora
from dreamcore.formats.lora_header import LoraFacts, lora_header
from dreamcore.formats.lora_pair import Pair, cut, stack
from dreamcore.formats.lora_readers import layers_found
from dreamcore.formats.tensors import Tensors

Q, K, V = (f"transformer_blocks.0.attn.to_{x}" for x in "qkv")
QKV = "lora_unet_double_blocks_0_img_attn_qkv"


def pair(rank: int = 1, rows: int = 2, inputs: int = 2, scale: float = 1.0, seed: int = 0) -> Pair:
    draw = np.random.default_rng(seed)
    down, up = draw.standard_normal((rank, inputs)), draw.standard_normal((rows, rank))
    return Pair(down.astype(np.float32), up.astype(np.float32), scale)


def test_layers_that_are_one_are_stacked_exactly() -> None:
    """Queries and values trained apart, keys not at all; alpha/rank stays what it was."""
    queries, values = Pair(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), 0.5), pair(2, seed=1, scale=0.5)
    found = kohya_arrays({("transformer", Q): queries, ("transformer", V): values}, "FluxPipeline")
    assert found.keys() == {f"{QKV}.lora_down.weight", f"{QKV}.lora_up.weight", f"{QKV}.alpha"}
    down, up, alpha = found[f"{QKV}.lora_down.weight"], found[f"{QKV}.lora_up.weight"], found[f"{QKV}.alpha"]
    assert (down.shape, up.shape, alpha) == ((3, 2), (6, 3), 1.5)
    np.testing.assert_array_equal(
        up @ down / 2, np.vstack([[[1.5, 3], [2, 4]], np.zeros((2, 2)), values.up @ values.down / 2])
    )


def test_one_down_matrix_keeps_its_rank_and_strengths_that_differ_are_folded() -> None:
    shared = pair(2)
    together = {("transformer", name): Pair(shared.down, shared.up * n, 2.0) for n, name in enumerate((Q, K, V), 1)}
    found = kohya_arrays(together, "FluxPipeline")
    assert found[f"{QKV}.lora_down.weight"].shape == (2, 2) and found[f"{QKV}.alpha"] == 4.0
    apart = {("transformer", name): pair(1, scale=float(n), seed=n) for n, name in enumerate((Q, K, V), 1)}
    found = kohya_arrays(apart, "FluxPipeline")
    product = found[f"{QKV}.lora_up.weight"] @ found[f"{QKV}.lora_down.weight"]
    assert found[f"{QKV}.alpha"] == 3.0
    np.testing.assert_allclose(product, np.vstack([p.up @ p.down * p.scale for p in apart.values()]), rtol=1e-6)


@pytest.mark.parametrize("count", [3, 4])
def test_what_was_stacked_is_cut_to_the_same_ranks(count: int) -> None:
    rows = [2, 2, 2, 8][:count]
    pairs = [pair(3, n, seed=n + i) for i, n in enumerate(rows)]
    again = cut(stack(pairs, rows), count)
    assert again is not None
    for before, after in zip(pairs, again, strict=True):
        np.testing.assert_array_equal(before.down, after.down)
        np.testing.assert_array_equal(before.up, after.up)


def test_the_parts_of_fluxs_linear1_are_of_their_widths(tmp_path: Path) -> None:
    """One pair of factors as kohya trains it: three rows of the width of the inputs, then the rest."""
    up = np.arange(14, dtype=np.float32).reshape(14, 1)
    name = "lora_unet_single_blocks_0_linear1"
    write_lora(
        tmp_path / "lora.safetensors", {f"{name}.lora_down.weight": np.ones((1, 2)), f"{name}.lora_up.weight": up}
    )
    read = {
        layer.rpartition("_blocks.0.")[2]: p.up.ravel().tolist()
        for (_, layer), p in read_lora(tmp_path / "lora.safetensors").items()
    }
    assert read == {"attn.to_q": [0, 1], "attn.to_k": [2, 3], "attn.to_v": [4, 5], "proj_mlp": [*range(6, 14)]}


def test_scale_and_shift_of_the_last_norm_change_places(tmp_path: Path) -> None:
    last = Pair(np.ones((1, 2), np.float32), np.arange(4, dtype=np.float32)[:, None], 1.0)
    found = kohya_arrays({("transformer", "norm_out.linear"): last}, "FluxPipeline")
    assert found["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"].ravel().tolist() == [2, 3, 0, 1]
    write_lora(tmp_path / "lora.safetensors", found)
    assert read_lora(tmp_path / "lora.safetensors")["transformer", "norm_out.linear"].up.ravel().tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_sd3_is_folded_and_has_no_alpha_at_which_a1111_stops() -> None:
    layers = {"transformer": [Q, K, V, "transformer_blocks.0.attn.to_out.0"]}
    pairs = {("transformer", name): pair(scale=3.0) for name in layers["transformer"]}
    found = kohya_arrays(pairs, "StableDiffusion3Pipeline")
    assert not any(name.endswith(".alpha") for name in found) and len(found) == 4
    out = "lora_unet_joint_blocks_0_x_block_attn_proj"
    product = found[f"{out}.lora_up.weight"] @ found[f"{out}.lora_down.weight"]
    np.testing.assert_allclose(product, pair().up @ pair().down * 3, rtol=1e-6)
    counted = layers_found(found, "StableDiffusion3Pipeline", layers)
    assert (counted["A1111"], counted["ComfyUI"]) == ((2, 2), (2, 2))
    alpha = {**found, f"{out}.alpha": np.ones(())}
    assert layers_found(alpha, "StableDiffusion3Pipeline", layers)["A1111"] == (0, 2)


def test_openclips_attention_is_changed_by_a1111_as_a_whole_or_not_at_all() -> None:
    layers = [
        f"text_model.encoder.layers.{n}.self_attn.{x}"
        for n in range(20)
        for x in ("q_proj", "k_proj", "v_proj", "out_proj")
    ]
    model = {"text_encoder": layers, "text_encoder_2": layers}
    pairs = {(component, layer): pair() for component in model for layer in layers[:6]}
    counted = layers_found(kohya_arrays(pairs, "StableDiffusionXLPipeline"), "StableDiffusionXLPipeline", model)
    assert counted["ComfyUI"] == (12, 12)
    assert counted["A1111"] == (6 + 4, 12)


@pytest.mark.parametrize(
    ("pipeline", "place"),
    [
        ("IFPipeline", ("unet", "mid_block.x")),
        ("StableDiffusionXLPipeline", ("unet", "mid_block.resnets.0.no_such")),
        ("StableDiffusionPipeline", ("text_encoder_2", "x")),
        ("FluxPipeline", ("transformer", "transformer_blocks.0.attn.no_such")),
    ],
)
def test_layers_without_a_name_are_told(pipeline: str, place: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=rf"kohya: .*({pipeline}|no_such)"):
        kohya_arrays({place: pair()}, pipeline)


@pytest.mark.parametrize(
    ("precision", "kind", "numbers"),
    [
        ("fp32", "F32", [1.0, 0.1, 3.0e38]),
        ("fp16", "F16", [1.0, 0.0999755859375, 65504.0]),
        ("bf16", "BF16", [1.0, 0.10009765625, 3.0e38]),
    ],
)
def test_precision(precision: str, kind: str, numbers: list[float], tmp_path: Path) -> None:
    """A tenth in 11 and in 8 bits, worked by hand; bfloat16 reaches as far as float32."""
    given = np.array([[1.0, 0.1, min(numbers[2], 3.0e38)]], np.float32)
    name = "lora_unet_mid_block_attentions_0_proj_in"
    arrays = {f"{name}.lora_down.weight": given, f"{name}.lora_up.weight": given.T, f"{name}.alpha": np.array(0.3)}
    for file in ("a", "b"):
        write_lora(tmp_path / f"{file}.safetensors", arrays, precision, {"title": "t", "ss_seed": "1"})  # type: ignore[arg-type]
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    opened = Tensors(tmp_path / "a.safetensors")
    assert [opened.dtypes[f"{name}.{end}"] for end in ("alpha", "lora_down.weight")] == ["F32", kind]
    ((_, read),) = read_lora(tmp_path / "a.safetensors").items()
    np.testing.assert_allclose(read.down.ravel(), numbers, rtol=3e-3 if precision == "bf16" else 1e-7)
    assert read.down[0, 1] == np.float32(numbers[1]) and read.scale == np.float32(0.3)
    content = (tmp_path / "a.safetensors").read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    assert opened.metadata["modelspec.hash_sha256"] == f"0x{digest}" and opened.metadata["sshs_model_hash"] == digest
    assert opened.metadata["title"] == "t"


def test_numbers_that_a_precision_has_no_place_for(tmp_path: Path) -> None:
    for value, precision in ((1e6, "fp16"), (np.nan, "fp32")):
        with pytest.raises(RunError, match=f"x: a number that is none, or has no place in {precision}"):
            write_lora(tmp_path / "a.safetensors", {"x": np.full(2, value, np.float32)}, precision)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_diffusers_names_say_of_their_strength(tmp_path: Path) -> None:
    """Folded, so that whoever knows no alpha counts them once; true rank and alpha in the header."""
    factors = {
        "unet.mid_block.x.lora_A.weight": np.ones((2, 3), np.float32),
        "unet.mid_block.x.lora_B.weight": np.ones((4, 2), np.float32),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": np.ones((2, 3), np.float32),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight": np.ones((4, 2), np.float32),
    }
    save_published(factors, 4.0, tmp_path, "fp16", {"ss_network_dim": "2"})
    file = tmp_path / "pytorch_lora_weights.safetensors"
    with safe_open(file, "np") as opened:
        said = json.loads(opened.metadata()["lora_adapter_metadata"])
        assert opened.metadata()["ss_network_dim"] == "2"
        assert opened.get_tensor("unet.mid_block.x.lora.up.weight").dtype == np.float16
    assert said["unet.r"] == 2 and said["unet.lora_alpha"] == 8 and said["unet.alpha_pattern"] == {".*": 2}
    assert said["unet.target_modules"] == ["mid_block.x"]
    assert said["text_encoder.target_modules"] == ["encoder.layers.0.mlp.fc1"], "transformers 5 has no text_model"
    for read in read_lora(file).values():
        np.testing.assert_array_equal(read.up @ read.down * read.scale, np.full((4, 3), 8.0))


FACTS = LoraFacts(
    pipeline="StableDiffusionXLPipeline",
    rank=8,
    alpha=4.0,
    title="sks-dog",
    date="2026-11-28T14:00:00",
    resolution=(1024, 768),
    base_model="/home/me/models/sd_xl_base.safetensors",
    trigger="a photo of sks dog",
    training={"steps": 500, "unet_lr": 1e-4, "optimizer": "adamw", "seed": None, "flip_aug": True},
    thumbnail=b"\x89PNG\r\n\x1a\nrest",
    base_path="/home/me/models/sd_xl_base.safetensors",
    tag_frequency={"10_dog": {"sks dog": 5}},
)


def test_the_header_says_what_programs_show() -> None:
    said = lora_header(FACTS)
    assert said == {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "8",
        "ss_network_alpha": "4",
        "ss_output_name": "sks-dog",
        "ss_resolution": "(1024, 768)",
        "ss_sd_model_name": "sd_xl_base.safetensors",
        "ss_steps": "500",
        "ss_unet_lr": "0.0001",
        "ss_optimizer": "adamw",
        "ss_flip_aug": "True",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "sks-dog",
        "modelspec.resolution": "1024x768",
        "modelspec.date": "2026-11-28T14:00:00",
        "modelspec.trigger_phrase": "a photo of sks dog",
        "modelspec.usage_hint": "Use it with: a photo of sks dog",
        "modelspec.prediction_type": "epsilon",
        "modelspec.thumbnail": "data:image/png;base64,iVBORw0KGgpyZXN0",
    }


def changed(**values: object) -> dict[str, str]:
    return lora_header(LoraFacts(**{**FACTS.__dict__, **values}))


def test_what_is_private_stands_there_on_request_alone() -> None:
    assert not any("/home/me" in text or 'sks dog": 5' in text for text in lora_header(FACTS).values())
    said = changed(private=True)
    assert said["ss_sd_model_name"] == "/home/me/models/sd_xl_base.safetensors"
    assert json.loads(said["ss_tag_frequency"]) == {"10_dog": {"sks dog": 5}}
    for name, public in {
        "stabilityai/sdxl": "stabilityai/sdxl", r"C:\models\sd.ckpt": "sd.ckpt", "models/deep/sd": "sd", "": None,
        "~/sd": "sd", "./sd": "sd",
    }.items():  # fmt: skip
        assert changed(base_model=name).get("ss_sd_model_name") == public


@pytest.mark.parametrize(
    ("values", "version", "architecture"),
    [
        ({"pipeline": "StableDiffusionPipeline"}, "sd_v1", "stable-diffusion-v1/lora"),
        ({"pipeline": "StableDiffusionPipeline", "v2": True}, "sd_v2", "stable-diffusion-v2-512/lora"),
        (
            {"pipeline": "StableDiffusionPipeline", "v2": True, "prediction": "v_prediction"},
            "sd_v2_v", "stable-diffusion-v2-768-v/lora",
        ),
        ({"pipeline": "StableDiffusion3Pipeline", "variant": "medium"}, "sd3_medium", "stable-diffusion-3-medium/lora"),
        ({"pipeline": "FluxPipeline"}, "flux1", "flux-1-dev/lora"),
        ({"pipeline": "FluxPipeline", "variant": "schnell"}, "flux1", "flux-1-schnell/lora"),
    ],
)  # fmt: skip
def test_the_base_models_names(values: dict[str, object], version: str, architecture: str) -> None:
    said = changed(**values)
    assert (said["ss_base_model_version"], said["modelspec.architecture"]) == (version, architecture)


def test_headers_that_would_be_wrong() -> None:
    with pytest.raises(ConfigError, match=r"date: yesterday: expected one of ISO 8601"):
        changed(date="yesterday")
    with pytest.raises(ConfigError, match="thumbnail: no PNG"):
        changed(thumbnail=b"GIF89a")
