"""Names of LoRA files, whoever gave them, and files that are refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.lora import factors_for, read_lora
from dreamcore.formats.lora_names import is_flux, module_and_kind, place
from dreamcore.formats.tensors import Entry, write_tensors
from dreamcore.formats.weights import Arrays, write_safetensors

Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "up_blocks.0.attentions.2.transformer_blocks.1.attn2.to_out.0"
CLIP = "text_model.encoder.layers.3.self_attn.q_proj"
JOINT, DOUBLE, SINGLE = "transformer_blocks.2.attn", "transformer_blocks.0.attn", "single_transformer_blocks.7"

NAMES = {
    # diffusers 0.15 to 0.20, with and without the component
    f"unet.{Q.removesuffix('to_q')}processor.to_q_lora.down.weight": ("unet", Q),
    f"{OUT.removesuffix('to_out.0')}processor.to_out_lora.up.weight": ("unet", OUT),
    "text_encoder.text_model.encoder.layers.3.self_attn.to_q_lora.up.weight": ("text_encoder", CLIP),
    "text_encoder.encoder.layers.3.self_attn.to_q.lora_linear_layer.down.weight": ("text_encoder", CLIP),
    # diffusers and peft since
    f"unet.{Q}.lora.down.weight": ("unet", Q),
    f"text_encoder_2.{CLIP}.lora_linear_layer.up.weight": ("text_encoder_2", CLIP),
    f"transformer.{JOINT}.add_k_proj.lora_B.weight": ("transformer", f"{JOINT}.add_k_proj"),
    f"transformer.{JOINT}.to_q.lora_A.default.weight": ("transformer", f"{JOINT}.to_q"),
    f"base_model.model.{Q}.lora_A.weight": ("unet", Q),
    f"base_model.model.{JOINT}.to_v.lora_B.weight": ("transformer", f"{JOINT}.to_v"),
    f"base_model.model.{CLIP}.lora_B.weight": ("text_encoder", CLIP),
    f"unet.base_model.model.{Q}.lora_A.weight": ("unet", Q),
    # ComfyUI, in the original models' names and in diffusers'
    "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_A.weight": ("unet", Q),
    "diffusion_model.output_blocks.2.1.transformer_blocks.1.attn2.to_out.0.lora_up.weight": ("unet", OUT),
    f"diffusion_model.{Q}.lora_down.weight": ("unet", Q),
    "diffusion_model.middle_block.2.emb_layers.1.lora_up.weight": ("unet", "mid_block.resnets.1.time_emb_proj"),
    "diffusion_model.single_blocks.7.linear2.lora_B.weight": ("transformer", f"{SINGLE}.proj_out"),
    f"text_encoders.clip_g.transformer.{CLIP}.lora_B.weight": ("text_encoder_2", CLIP),
    # kohya: SD 1 and 2, SDXL, SD 3, Flux; convolutions
    f"lora_unet_{Q.replace('.', '_')}.lora_down.weight": ("unet", Q),
    "lora_unet_down_blocks_0_downsamplers_0_conv.alpha": ("unet", "down_blocks.0.downsamplers.0.conv"),
    "lora_unet_mid_block_resnets_0_time_emb_proj.alpha": ("unet", "mid_block.resnets.0.time_emb_proj"),
    f"lora_te_{CLIP.replace('.', '_')}.lora_up.weight": ("text_encoder", CLIP),
    f"lora_te1_{CLIP.replace('.', '_')}.alpha": ("text_encoder", CLIP),
    f"lora_te2_{CLIP.replace('.', '_')}.alpha": ("text_encoder_2", CLIP),
    "lora_te3_encoder_block_0_layer_0_SelfAttention_q.alpha": (
        "text_encoder_3", "encoder.block.0.layer.0.SelfAttention.q"
    ),
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight": ("unet", Q),
    "lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight": ("unet", "down_blocks.0.resnets.0.conv1"),
    "lora_unet_input_blocks_3_0_op.lora_up.weight": ("unet", "down_blocks.0.downsamplers.0.conv"),
    "lora_unet_output_blocks_5_2_conv.lora_up.weight": ("unet", "up_blocks.1.upsamplers.0.conv"),
    "lora_unet_label_emb_0_2.lora_up.weight": ("unet", "add_embedding.linear_2"),
    "lora_unet_joint_blocks_2_x_block_attn_proj.alpha": ("transformer", f"{JOINT}.to_out.0"),
    "lora_unet_joint_blocks_2_context_block_mlp_fc1.alpha": (
        "transformer", "transformer_blocks.2.ff_context.net.0.proj"
    ),
    "lora_unet_double_blocks_0_txt_mod_lin.alpha": ("transformer", "transformer_blocks.0.norm1_context.linear"),
    "lora_unet_final_layer_adaLN_modulation_1.alpha": ("transformer", "norm_out.linear"),
    # OneTrainer, SimpleTuner
    "lora_transformer_single_transformer_blocks_7_proj_mlp.alpha": ("transformer", f"{SINGLE}.proj_mlp"),
    "lora_transformer_transformer_blocks_0_attn_to_add_out.lora_up.weight": ("transformer", f"{DOUBLE}.to_add_out"),
    f"lycoris_{Q.replace('.', '_')}.lora_up.weight": ("unet", Q),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_its_layer(name: str) -> None:
    found = module_and_kind(name)
    assert found is not None
    assert found[1] == ("alpha" if "alpha" in name else "up" if "up" in name or "lora_B" in name else "down")
    where = place(found[0], flux=is_flux([name]))
    assert where is not None and (where.component, where.layers) == (NAMES[name][0], (NAMES[name][1],))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("lora_unet_joint_blocks_2_x_block_attn_qkv", [f"{JOINT}.to_{x}" for x in "qkv"]),
        ("lora_unet_joint_blocks_2_context_block_attn_qkv", [f"{JOINT}.add_{x}_proj" for x in "qkv"]),
        ("lora_unet_joint_blocks_2_x_block_attn2_qkv", [f"transformer_blocks.2.attn2.to_{x}" for x in "qkv"]),
        ("diffusion_model.double_blocks.0.img_attn.qkv", [f"{DOUBLE}.to_{x}" for x in "qkv"]),
        ("lora_unet_double_blocks_0_txt_attn_qkv", [f"{DOUBLE}.add_{x}_proj" for x in "qkv"]),
        (
            "lora_unet_single_blocks_7_linear1",
            [*(f"{SINGLE}.attn.to_{x}" for x in "qkv"), f"{SINGLE}.proj_mlp"],
        ),
    ],
)
def test_one_layer_that_is_several(name: str, layers: list[str]) -> None:
    where = place(name, flux=True)
    assert where is not None and (where.component, list(where.layers)) == ("transformer", layers)


def test_t5_is_fluxs_second_text_encoder_and_sd3s_third() -> None:
    t5 = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
    components = [found.component for flux in (True, False) if (found := place(t5, flux=flux))]
    assert components == ["text_encoder_2", "text_encoder_3"]
    assert is_flux([t5, "lora_unet_single_blocks_0_linear1.alpha"]) and not is_flux([t5, "lora_unet_mid_block.alpha"])


def factors(name: str, down: str = "lora_down", up: str = "lora_up", shape: tuple[int, int] = (4, 3)) -> Arrays:
    draw = np.random.default_rng(0)
    return {
        f"{name}.{down}.weight": draw.standard_normal((2, shape[1])).astype(np.float32),
        f"{name}.{up}.weight": draw.standard_normal((shape[0], 2)).astype(np.float32),
    }


ALPHA = np.array(3.0, np.float32)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lora_unet_x.lokr_t2", "LoKr or LoHa with a third factor"),
        ("lora_unet_x.hada_t1", "LoKr or LoHa with a third factor"),
        ("oft_unet_x.oft_blocks", "OFT"),
        ("unet.x.oft_R.weight", "OFT"),
        ("lora_unet_x.lora_mid.weight", "Tucker"),
        ("lora_unet_x.a1.weight", "GLoRA"),
        ("bundle_emb.style.string_to_param.*", "embeddings"),
        ("style.emb_params", "embeddings"),
        ("lora_unet_x.diff_b", "whole weights"),
        ("transformer.x.lora_B.bias", "biases"),
    ],
)
def test_other_adapters_are_named_as_what_they_are(name: str, kind: str, tmp_path: Path) -> None:
    many = {f"lora_unet_mid_block_{n}.lora_down.weight": np.ones((2, 2), np.float32) for n in range(400)}
    write_safetensors(tmp_path / "other.safetensors", {**many, name: np.ones((2, 2), np.float32)})
    with pytest.raises(ConfigError, match=kind) as caught:
        read_lora(tmp_path / "other.safetensors")
    said = str(caught.value).removeprefix(f"lora: {tmp_path / 'other.safetensors'}: ")
    assert said.startswith(f"{name}: holds ") and len(said) < 140 and "\n" not in said


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "holds no LoRA factors"),
        (factors("lora_unet_no_such"), "lora_unet_no_such.lora_down.weight: a name of no layer"),
        (factors("diffusion_model.mid.to_q"), "a name of no layer"),
        ({"weights": ALPHA}, "weights: not a name"),
        (dict(list(factors("unet.mid_block.x").items())[:1]), "unet.mid_block.x: has only down of its factors"),
        ({**factors("unet.mid_block.x"), "unet.mid_block.x.alpha": np.ones(2, np.float32)}, "x.alpha: .*a number"),
        ({**factors("unet.mid_block.x"), "unet.mid_block.x.alpha": np.array(np.nan, np.float32)}, "x.alpha: "),
        (factors("unet.mid_block.x") | factors("diffusion_model.mid_block.x"), "two pairs of factors of unet.mid"),
        (factors("unet.mid_block.x") | factors("unet.mid_block.x", "lora_A", "lora_B"), "a second down factor"),
        ({n: a[:0] if "down" in n else a[:, :0] for n, a in factors("unet.mid_block.x").items()}, "do not fit each"),
        ({n: a[:, :, None] for n, a in factors("unet.mid_block.x").items()}, "do not fit each other"),
        (factors("lora_unet_joint_blocks_0_x_block_attn_qkv"), "are not those of 3 layers"),
        (factors("lora_unet_single_blocks_0_linear1", shape=(9, 3)), "are not those of 4 layers"),
    ],
)
def test_files_that_are_not_understood(arrays: Arrays, words: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "lora.safetensors", arrays)
    with pytest.raises(ConfigError, match=f"lora: .*lora.safetensors: .*{words}"):
        read_lora(tmp_path / "lora.safetensors")


def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    write_safetensors(file, factors("unet.mid_block.x"))
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["unet.mid_block.x.lora_down.weight"]["data_offsets"] = [0, 2**40]
    lying = json.dumps(header).encode()
    for content in (
        whole[:-1],
        whole[: length // 2],
        (2**62).to_bytes(8, "little") + whole[8:],
        len(lying).to_bytes(8, "little") + lying + whole[8 + length :],
        b"",
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"lora\.safetensors: cannot be read as safetensors"):
            read_lora(file)


def test_strength_by_alpha_in_the_file_its_header_or_pefts_settings_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "adapter_model.safetensors"
    name = "lora_unet_mid_block_attentions_0_proj_in"
    for alpha in (ALPHA, ALPHA.reshape(1), ALPHA.astype(np.float16)):
        write_safetensors(file, {**factors(name), f"{name}.alpha": alpha})
        ((_, pair),) = read_lora(file).items()
        assert pair.scale == 1.5
    bits = {f"{name}.alpha": Entry("BF16", (), np.array(0x4040, np.uint16))}  # 3 in bfloat16
    write_tensors(file, {**{n: Entry.of(a) for n, a in factors(name).items()}, **bits})
    assert [pair.scale for pair in read_lora(file).values()] == [1.5]
    own = factors("base_model.model.mid_block.attentions.0.proj_in", "lora_A", "lora_B")
    write_safetensors(file, own)
    assert [pair.scale for pair in read_lora(file).values()] == [1.0]
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 8, "alpha_pattern": {"proj_out": 1}}')
    assert [pair.scale for pair in read_lora(file).values()] == [4.0]
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 8')
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors: the settings noted with it are no JSON"):
        read_lora(file)


def test_a_convolution_of_size_one_is_a_linear_layer_too(tmp_path: Path) -> None:
    """As SD 1 has it, of whose file a trainer has made the other."""
    name, layer = "lora_unet_mid_block_attentions_0_proj_in", "mid_block.attentions.0.proj_in"
    flat = factors(name)
    write_safetensors(tmp_path / "flat.safetensors", flat)
    write_safetensors(tmp_path / "conv.safetensors", {n: a[:, :, None, None] for n, a in flat.items()})
    for file in ("flat", "conv"):
        for shape in ((4, 3), (4, 3, 1, 1)):
            ((_, pair),) = factors_for(tmp_path / f"{file}.safetensors", {"unet": {layer: shape}}).items()
            assert (pair.down.shape, pair.up.shape) == ((2, *shape[1:]), (4, 2, *shape[2:]))
            np.testing.assert_array_equal(pair.down.ravel(), flat[f"{name}.lora_down.weight"].ravel())
        with pytest.raises(ConfigError, match=r"do not fit this model's \(4, 3, 3, 3\)"):
            factors_for(tmp_path / f"{file}.safetensors", {"unet": {layer: (4, 3, 3, 3)}})


def test_blocks_are_numbered_as_the_model_has_them(tmp_path: Path) -> None:
    """In a UNet with one residual block in a level, the third block is the second level's."""
    name = "lora_unet_input_blocks_3_1_proj_in"
    write_safetensors(tmp_path / "lora.safetensors", factors(name))
    shapes = {"down_blocks.0.resnets.0.conv1": (4, 3), "down_blocks.1.attentions.0.proj_in": (4, 3)}
    ((key, _),) = factors_for(tmp_path / "lora.safetensors", {"unet": shapes}).items()
    assert key == ("unet", "down_blocks.1.attentions.0.proj_in")
