"""LoHa, LoKr, DoRA and PiSSA in files: the change of the weights that they make, by their papers' formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamcore.backends.lora_first import factor_shapes, first_values, principal
from dreamcore.errors import ConfigError
from dreamcore.formats.kohya_lora import kohya_arrays, lycoris_arrays
from dreamcore.formats.lora import read_lora, save_published, write_lora
from dreamcore.formats.lora_arithmetic import added, concatenated, product, resized
from dreamcore.formats.lora_kinds import LOHA, kronecker_shapes
from dreamcore.formats.lora_pair import Pair, reshaped
from dreamcore.formats.lora_raw import pairs_of, products_of
from dreamcore.formats.lora_readers import layers_found
from dreamcore.formats.tensors import Tensors
from dreamcore.formats.weights import Arrays, write_safetensors
from dreamcore.io.names import LORA_FILE

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
NAMES = {
    "kohya": f"lora_unet_{LAYER.replace('.', '_')}",
    "lycoris": f"lycoris_{LAYER.replace('.', '_')}",
    "ours": f"unet.{LAYER}",
}


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def read(tmp_path: Path, factors: Arrays, module: str = NAMES["kohya"]) -> Pair:
    write_safetensors(tmp_path / "lora.safetensors", {f"{module}.{name}": a for name, a in factors.items()})
    ((place, pair),) = read_lora(tmp_path / "lora.safetensors").items()
    assert place == ("unet", LAYER)
    return pair


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(("rank", "wide"), [(2, 20), (4, 20), (2, 45)], ids=["low", "more than sides", "convolution"])
def test_loha(rank: int, wide: int, names: str, tmp_path: Path) -> None:
    shapes = {name: (12, rank) if name.endswith("a") else (rank, wide) for name in LOHA}
    factors = drawn(shapes)
    pair = read(tmp_path, {**factors, "alpha": np.array(3.0, np.float32)}, NAMES[names])
    one, two = (factors[f"hada_w{n}_a"].astype("f8") @ factors[f"hada_w{n}_b"] for n in (1, 2))
    np.testing.assert_allclose(product(pair), 3 / rank * one * two, atol=1e-4)
    assert pair.rank == min(rank**2, 12, wide)
    if wide == 45:
        whole = reshaped(pair, (12, 5, 3, 3))
        assert whole is not None
        np.testing.assert_allclose(product(whole), (3 / rank * one * two).reshape(12, 5, 3, 3), atol=1e-4)


LEFT = {"w1": {"lokr_w1": (3, 2)}, "w1 of two": {"lokr_w1_a": (3, 1), "lokr_w1_b": (1, 2)}}
RIGHT = {
    "w2": {"lokr_w2": (4, 10)},
    "w2 of two": {"lokr_w2_a": (4, 2), "lokr_w2_b": (2, 10)},
    "a convolution's": {"lokr_w2": (4, 10, 3, 3)},
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("right", RIGHT)
def test_lokr(left: str, right: str, tmp_path: Path) -> None:
    """Alpha counts over w2's rank, else over w1's, else for nothing: as ComfyUI's `lokr.py`."""
    factors = drawn(LEFT[left] | RIGHT[right])
    pair = read(tmp_path, {**factors, "alpha": np.array(3.0, np.float32)})
    w1 = factors.get("lokr_w1", factors["lokr_w1_a"] @ factors["lokr_w1_b"] if "lokr_w1_a" in factors else None)
    w2 = factors.get("lokr_w2", factors["lokr_w2_a"] @ factors["lokr_w2_b"] if "lokr_w2_a" in factors else None)
    assert w1 is not None and w2 is not None
    wanted = np.kron(w1.reshape(*w1.shape, *(1,) * (w2.ndim - 2)), w2)
    scale = 3 / 2 if right == "w2 of two" else 3 / 1 if left == "w1 of two" else 1
    np.testing.assert_allclose(product(pair), scale * wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"hada_w1_a": (3, 2), "hada_w1_b": (2, 3)}, "not the factors of a LoHa or LoKr layer"),
        ({"lokr_w1": (3, 2)}, "not the factors of a LoHa or LoKr layer"),
        ({"lokr_w1": (3, 2), "lora_down.weight": (2, 2)}, "not the factors of a LoHa or LoKr layer"),
        ({"lokr_w1": (3, 2), "lokr_w2": (3, 2), "lokr_t2": (2, 2)}, "third factor"),
        ({"lora_down.weight": (2, 4), "lora_up.weight": (6, 2), "dora_scale": (1, 4)}, "not one number for each of 6"),
        ({"lora_down.weight": (2, 6), "lora_up.weight": (6, 2), "dora_scale": (1, 6)}, "not one number for each of 6"),
    ],
    ids=str,
)
def test_what_is_not_whole_is_refused(factors: dict[str, tuple[int, ...]], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, drawn(factors))


DORA = {"lora_down.weight": (2, 8), "lora_up.weight": (6, 2), "dora_scale": (6, 1), "alpha": ()}


def test_dora_in_a_weight(tmp_path: Path) -> None:
    factors = drawn(DORA) | {"alpha": np.array(3.0, np.float32)}
    weight = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)
    pair = read(tmp_path, factors)
    total = weight + 1.5 * factors["lora_up.weight"] @ factors["lora_down.weight"]
    wanted = factors["dora_scale"] * total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(added(weight, [(pair, 1.0)], "x"), wanted, atol=1e-5)
    half = weight + 0.5 * (wanted - weight)
    np.testing.assert_allclose(added(weight, [(pair, 0.5)], "x"), half, atol=1e-5)
    smaller, _ = resized(pair, 1)
    assert smaller.rank == 1 and smaller.magnitude is pair.magnitude
    with pytest.raises(ConfigError, match="DoRA is not merged into another LoRA"):
        concatenated([({("unet", LAYER): pair}, 1.0)], "lora")


def test_dora_under_other_names(tmp_path: Path) -> None:
    """peft's, diffusers' and kohya's; of SD 3, whose queries, keys and values are one layer there."""
    blocks = [f"transformer_blocks.0.attn.to_{x}" for x in "qkv"]
    shapes = {}
    for layer in blocks:
        name = f"transformer.{layer}"
        shapes |= {f"{name}.lora_A.weight": (2, 6), f"{name}.lora_B.weight": (6, 2)}
        shapes |= {f"{name}.lora_magnitude_vector": (6,)}
    factors = drawn(shapes)
    save_published(factors, 0.5, tmp_path)
    ours, raw = read_lora(tmp_path / LORA_FILE), pairs_of(factors, 0.5)
    fused = kohya_arrays(raw, "StableDiffusion3Pipeline")
    assert fused["lora_unet_joint_blocks_0_x_block_attn_qkv.dora_scale"].shape == (18, 1)
    write_lora(tmp_path / "kohya.safetensors", fused)
    theirs = read_lora(tmp_path / "kohya.safetensors")
    weight = np.random.default_rng(1).standard_normal((6, 6)).astype(np.float32)
    assert ours.keys() == theirs.keys() == raw.keys()
    for place, pair in raw.items():
        wanted = added(weight, [(pair, 1.0)], "x")
        for found in (ours[place], theirs[place]):
            np.testing.assert_allclose(added(weight, [(found, 1.0)], "x"), wanted, atol=1e-5)
    with pytest.raises(ConfigError, match="DoRA of some only of the layers that are one there"):
        kohya_arrays({place: pair for place, pair in raw.items() if "to_k" not in place[1]}, "StableDiffusion3Pipeline")


def test_pissa_is_lora_of_twice_the_rank() -> None:
    weight, rank, scale = drawn({"w": (12, 20)})["w"], 3, 2.0
    first = {f"unet.{LAYER}{end}": a for end, a in principal(weight, rank, scale).items()}
    (begun,) = pairs_of(first, scale).values()
    assert np.abs(product(begun)).max() < 1e-5, "begins as the model is"
    u, s, vt = np.linalg.svd(weight.astype("f8"))
    best = (u[:, :rank] * s[:rank]) @ vt[:rank]
    down, up = (first[f"unet.{LAYER}.lora_{x}.weight"] for x in "AB")
    np.testing.assert_allclose(scale * up @ down, best, atol=1e-5)
    moved = first | {f"unet.{LAYER}.lora_A.weight": down + 1, f"unet.{LAYER}.lora_B.weight": up - 2}
    (pair,) = pairs_of(moved, scale).values()
    assert pair.rank == 2 * rank
    np.testing.assert_allclose(product(pair), scale * ((up - 2) @ (down + 1) - up @ down), atol=1e-4)


@pytest.mark.parametrize("method", ["loha", "lokr"])
def test_our_files_of_products(method: str, tmp_path: Path) -> None:
    """Our names and LyCORIS's say the same change; with rsLoRA's scale too."""
    shapes, rank = factor_shapes(method, (12, 40), 2), 2  # type: ignore[arg-type]
    begun = first_values(method, shapes, 3, f"unet.{LAYER}", scale=1.0)  # type: ignore[arg-type]
    scale = 5.0 / rank**0.5
    factors = {f"unet.{LAYER}{end}": a + 0.1 for end, a in begun.items()}
    save_published(factors, scale, tmp_path)
    (ours,) = read_lora(tmp_path / LORA_FILE).values()
    names = lycoris_arrays(products_of(factors, scale), "StableDiffusionPipeline")
    write_lora(tmp_path / "other.safetensors", names)
    (theirs,) = read_lora(tmp_path / "other.safetensors").values()
    own = {name.rpartition(".")[2]: a for name, a in factors.items()}
    if method == "loha":
        wanted = (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"])
    else:
        wanted = np.kron(own["lokr_w1"], own["lokr_w2_a"] @ own["lokr_w2_b"])
    for pair in (ours, theirs):
        np.testing.assert_allclose(product(pair), scale * wanted, atol=1e-4)
    assert all(name.startswith(f"{NAMES['kohya']}.") for name in names)
    layers = {"unet": [f"down_blocks.0.resnets.{n}.conv1" for n in (0, 1)] + [LAYER]}
    found = layers_found(names, "StableDiffusionPipeline", layers)
    assert found == {"ComfyUI": (1, 1), "Forge": (1, 1), "A1111": (1, 1), "diffusers": (0, 1)}
    assert layers_found(Tensors(tmp_path / LORA_FILE), "StableDiffusionPipeline", layers)["diffusers"] == (0, 1)


def test_first_values_are_drawn_by_name_and_change_nothing() -> None:
    for method in ("loha", "lokr"):
        shapes = factor_shapes(method, (12, 20, 3, 3), 2)  # type: ignore[arg-type]
        one, again, other = (
            first_values(method, shapes, seed, name, scale=1.0)  # type: ignore[arg-type]
            for seed, name in ((3, "unet.a"), (3, "unet.a"), (3, "unet.b"))
        )
        assert {end: a.shape for end, a in one.items()} == shapes
        assert all(np.array_equal(one[end], again[end]) for end in one)
        assert any(not np.array_equal(one[end], other[end]) for end in one)
        assert any(not a.any() for a in one.values()) and sum(not a.any() for a in one.values()) == 1


@pytest.mark.parametrize("factor", [None, 2, 4, 8, 16])
def test_lokrs_matrices_divide_the_weight(factor: int | None) -> None:
    """Examples of LyCORIS's `factorization`."""
    known = {(128, None): 8, (128, 16): 8, (250, None): 10, (250, 8): 5, (512, 4): 4, (1024, None): 32, (127, 8): 1}
    for (count, asked), first in known.items():
        if asked == factor:
            (a, _), (c, _) = kronecker_shapes(count, 7, factor)
            assert (a, a * c) == (first, count)
