"""MindONE's LoRA files: the same products of factors under both libraries' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamcore.errors import ConfigError
from dreamcore.formats.ldm import UNetGeometry
from dreamcore.formats.lora import Pair, read_lora, save_published
from dreamcore.formats.mindone_lora import lora_from_mindone, lora_to_mindone
from dreamcore.formats.mindspore_ckpt import read_ckpt, write_ckpt
from dreamcore.io.names import LORA_FILE

Array = NDArray[Any]
RANK, WIDTH, WORDS = 4, 16, 12
UNET = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0"
TEXT = "cond_stage_model.transformer.transformer_layer.resblocks.11.attn.attn"
OURS = "unet.up_blocks.3.attentions.2.transformer_blocks.0"
OURS_TEXT = "text_encoder.text_model.encoder.layers.11.self_attn"


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def mindones() -> dict[str, Array]:
    """As its two injections name them: attention's four layers in the UNet, two in the text encoder."""
    widths = {
        f"{UNET}.attn1.to_q": (WIDTH, WIDTH),
        f"{UNET}.attn2.to_k": (WORDS, WIDTH),
        f"{UNET}.attn2.to_out.0": (WIDTH, WIDTH),
        f"{TEXT}.in_proj": (WORDS, 3 * WORDS),
        f"{TEXT}.out_proj": (WORDS, WORDS),
    }
    found = {"lora_rank": np.array(RANK)}
    for seed, (layer, (inputs, outputs)) in enumerate(widths.items()):
        found[f"{layer}.lora_down.weight"] = numbers(RANK, inputs, seed=seed)
        found[f"{layer}.lora_up.weight"] = numbers(outputs, RANK, seed=99 + seed)
    return found


def pairs_of(arrays: dict[str, Array]) -> dict[tuple[str, str], Pair]:
    layers = [name.removesuffix(".lora_A.weight") for name in arrays if name.endswith(".lora_A.weight")]
    return {
        (layer.partition(".")[0], layer.partition(".")[2]): Pair(
            arrays[f"{layer}.lora_A.weight"], arrays[f"{layer}.lora_B.weight"], 1.0
        )
        for layer in layers
    }


def test_names_and_factors() -> None:
    theirs = mindones()
    ours = lora_from_mindone(theirs, "x")
    layers = {name.rpartition(".lora_")[0] for name in ours}
    text = {f"{OURS_TEXT}.{x}" for x in ("q_proj", "k_proj", "v_proj", "out_proj")}
    assert layers == {f"{OURS}.{x}" for x in ("attn1.to_q", "attn2.to_k", "attn2.to_out.0")} | text
    assert np.array_equal(ours[f"{OURS}.attn2.to_k.lora_A.weight"], theirs[f"{UNET}.attn2.to_k.lora_down.weight"])
    whole = theirs[f"{TEXT}.in_proj.lora_up.weight"] @ theirs[f"{TEXT}.in_proj.lora_down.weight"]
    for number, x in enumerate("qkv"):
        product = ours[f"{OURS_TEXT}.{x}_proj.lora_B.weight"] @ ours[f"{OURS_TEXT}.{x}_proj.lora_A.weight"]
        assert np.allclose(product, np.split(whole, 3)[number], atol=1e-6)


def test_there_and_back(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "lora.ckpt", mindones())
    back = lora_to_mindone(pairs_of(lora_from_mindone(read_ckpt(tmp_path / "lora.ckpt"), "x")), "x")
    assert back.keys() == mindones().keys()
    assert all(np.array_equal(back[name], array) for name, array in mindones().items())


def test_a_file_of_ours_is_read_and_its_scale_kept(tmp_path: Path) -> None:
    factors = {f"{OURS}.attn1.to_v.lora_A.weight": numbers(RANK, WIDTH)}
    factors[f"{OURS}.attn1.to_v.lora_B.weight"] = numbers(WIDTH, RANK)
    save_published(factors, 0.5, tmp_path)
    theirs = lora_to_mindone(read_lora(tmp_path / LORA_FILE), "x")
    up, down = (theirs[f"{UNET}.attn1.to_v.lora_{part}.weight"] for part in ("up", "down"))
    product = factors[f"{OURS}.attn1.to_v.lora_B.weight"] @ factors[f"{OURS}.attn1.to_v.lora_A.weight"]
    assert np.allclose(up @ down, 0.5 * product, atol=1e-6)
    scaled = lora_to_mindone({("unet", OURS[5:] + ".attn1.to_v"): Pair(down, up, 3.0)}, "x")
    assert np.allclose(scaled[f"{UNET}.attn1.to_v.lora_up.weight"], 3 * up)


def test_queries_and_values_that_were_trained_apart(tmp_path: Path) -> None:
    """Of rank 4 and 2 in the text encoder, without keys, and 4 in the UNet: one file of rank 6, the same products."""
    layer = OURS_TEXT.removeprefix("text_encoder.")
    pairs = {
        ("text_encoder", f"{layer}.q_proj"): Pair(numbers(4, WORDS), numbers(WORDS, 4, seed=1), 1.0),
        ("text_encoder", f"{layer}.v_proj"): Pair(numbers(2, WORDS, seed=2), numbers(WORDS, 2, seed=3), 1.0),
        ("unet", OURS[5:] + ".attn1.to_q"): Pair(numbers(4, WIDTH), numbers(WIDTH, 4, seed=1), 1.0),
    }
    theirs = lora_to_mindone(pairs, "x")
    assert theirs["lora_rank"] == 6
    assert {len(array) for name, array in theirs.items() if name.endswith("down.weight")} == {6}
    again = lora_from_mindone(theirs, "x")
    for (component, name), pair in pairs.items():
        found = again[f"{component}.{name}.lora_B.weight"] @ again[f"{component}.{name}.lora_A.weight"]
        assert np.allclose(found, pair.up @ pair.down, atol=1e-6)
    assert not again[f"{OURS_TEXT}.k_proj.lora_B.weight"].any()


def test_names_of_old_files() -> None:
    """diffusers' files of 2023 leave out CLIP's prefix and to_out's number; so `read_lora` gives their layers."""
    old = {
        ("text_encoder", "encoder.layers.0.self_attn.out_proj"): Pair(numbers(2, 8), numbers(8, 2), 1.0),
        ("unet", OURS[5:] + ".attn1.to_out"): Pair(numbers(2, 8), numbers(8, 2), 1.0),
    }
    layer = TEXT.replace("11", "0")
    names = {name for name in lora_to_mindone(old, "x") if name.endswith("down.weight")}
    assert names == {f"{UNET}.attn1.to_out.0.lora_down.weight", f"{layer}.out_proj.lora_down.weight"}


def test_another_geometry() -> None:
    layer = "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.attn1.to_q"
    theirs = {f"{layer}.lora_down.weight": numbers(2, 8), f"{layer}.lora_up.weight": numbers(8, 2)}
    found = lora_from_mindone(theirs, "x", UNetGeometry((32, 64), 1, (True, False)))
    assert next(iter(found)) == "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q.lora_A.weight"


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        (f"{UNET}.attn1.to_q.lora_mid.weight", numbers(2), "not a name that MindONE gives"),
        (f"{UNET}.ff.net.2.lora_down.weight", numbers(2, 2), "ff.net.2: this model has no such layer"),
        (f"{UNET}.attn1.to_v.lora_down.weight", numbers(2, 2), "attn1.to_v: has only .lora_down.weight"),
        (f"{TEXT}.in_proj.lora_up.weight", numbers(35, RANK), r"in_proj: factors \(4, 12\) and \(35, 4\) do not fit"),
    ],
)
def test_what_is_wrong_is_said(name: str, array: Array, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"lora: some.ckpt: .*{reason}"):
        lora_from_mindone({**mindones(), name: array}, "some.ckpt")


def test_files_without_factors_and_layers_without_place() -> None:
    with pytest.raises(ConfigError, match="x: holds no LoRA factors of MindONE's"):
        lora_from_mindone({"lora_rank": np.array(4)}, "x")
    with pytest.raises(ConfigError, match="x: holds no LoRA factors"):
        lora_to_mindone({}, "x")
    other = {("unet", OURS[5:] + ".ff.net.2"): Pair(numbers(2, 8), numbers(8, 2), 1.0)}
    with pytest.raises(ConfigError, match="x: unet.up_blocks.*ff.net.2: .* attentions of the UNet"):
        lora_to_mindone(other, "x")
