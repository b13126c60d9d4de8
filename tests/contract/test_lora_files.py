"""LoRA files of others: what `generate` reads, and what it refuses because a part of it would be left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.protocol import Backend
from dreamcore.backends.registry import load_backend
from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError
from dreamcore.formats.weights import Arrays, read_weights, write_safetensors
from dreamcore.models.folder import ModelFolder

from ..support.images import distance, ours

UNET = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
ENCODER = "text_encoder.text_model.encoder.layers.0"


@pytest.fixture(scope="module")
def backend(tiny_model: Path) -> Backend:
    given = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a dog", "device": "cpu"}
    return load_backend(installed_backends()[0], ModelFolder.open(str(tiny_model)), GenerateConfig.from_mapping(given))


@pytest.fixture(scope="module")
def shapes(tiny_model: Path) -> dict[str, tuple[int, ...]]:
    """COMPONENT.LAYER -> shape of its weight."""
    model = ModelFolder.open(str(tiny_model))
    weights = {c: read_weights(model.weight_files(c)) for c in ("unet", "text_encoder")}
    return {
        f"{c}.{name.removesuffix('.weight')}": w.shape for c, arrays in weights.items() for name, w in arrays.items()
    }


def pair(layer: str, shape: tuple[int, ...], down: str = "lora_A.weight", up: str = "lora_B.weight") -> Arrays:
    """Factors of rank 2 that show, of a layer of `shape` [out, in], or [out, in, kh, kw]."""
    draw = np.random.default_rng(sum(layer.encode()))
    return {
        f"{layer}.{down}": draw.standard_normal((2, *shape[1:])).astype(np.float32),
        f"{layer}.{up}": draw.standard_normal((shape[0], 2, *(1 for _ in shape[2:]))).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (pair("unet.no_such.to_q", (4, 4)), r"unet\.no_such\.to_q: this model has no such layer"),
        (pair("text_encoder_2.encoder.q_proj", (4, 4)), r"text_encoder_2\.encoder\.q_proj: this model has no such"),
        (pair("diffusion_model.mid.to_q", (4, 4)), r"diffusion_model\.mid\.to_q\.lora_A\.weight: a name of no layer"),
        (pair(f"{UNET}.to_k", (3, 5)), r"to_k: factors \(2, 5\) and \(3, 2\) do not fit this model's"),
        ({f"{UNET}.to_k.lora_A.weight": np.ones((2, 4))}, r"attn1\.to_k: has only down of its factors"),
        ({f"{UNET}.to_k.stray": np.ones((2, 4))}, r"to_k\.stray: "),
        ({f"{UNET}.to_k.hada_w1_a": np.ones((2, 4))}, r"to_k: hada_w1_a are not the factors of a LoHa or LoKr layer"),
        ({f"{UNET}.to_k.dora_scale": np.ones((4, 1))}, r"to_k: has only dora_scale of its factors"),
        ({"lora_unet_mid_block_x.lokr_w1": np.ones((4, 1))}, r"mid_block_x: lokr_w1 are not the factors of a"),
        ({"lora_unet_no_such.lora_down.weight": np.ones((4, 1))}, r"no.?such"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_no_factor_is_left_out(
    other: Arrays, words: str, alone: bool, backend: Backend, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    known = {} if alone else pair(f"{UNET}.to_q", shapes[f"{UNET}.to_q"])
    write_safetensors(tmp_path / "lora.safetensors", known | other)
    with pytest.raises(ConfigError, match=rf"lora: .*lora\.safetensors: .*{words}"):
        backend.load_lora(tmp_path / "lora.safetensors", 1.0)


def test_a_file_without_factors(backend: Backend, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "lora.safetensors", {})
    with pytest.raises(ConfigError, match=r"lora\.safetensors: holds no LoRA factors"):
        backend.load_lora(tmp_path / "lora.safetensors", 1.0)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [({}, 3), ({"use_rslora": True}, 3 * 2**0.5), ({"alpha_pattern": {"attn1.to_q": 1}}, 0.5)],
    ids=str,
)
def test_the_strength_that_a_file_notes(
    settings: dict[str, Any], scale: float, tiny_model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    """diffusers' scripts note peft's alpha in the file's header; the same is an up matrix so many times as large."""
    down, up = pair(f"{UNET}.to_q", shapes[f"{UNET}.to_q"]).items()
    noted = {"r": 2, "lora_alpha": 6, "target_modules": ["to_q"], **settings}
    header = {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in noted.items()})}
    write_safetensors(tmp_path / "noted.safetensors", dict([down, up]), header)
    write_safetensors(tmp_path / "plain.safetensors", dict([down, (up[0], up[1] * np.float32(scale))]))
    noted_one, plain = (
        ours(tiny_model, tmp_path / name, lora=str(tmp_path / f"{name}.safetensors")) for name in ("noted", "plain")
    )
    assert distance(noted_one, plain) <= 1
    assert distance(plain, ours(tiny_model, tmp_path / "without")) > 1, "the factors show"


def test_old_names_and_new_make_one_picture(
    tiny_model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    """Of diffusers 0.15 and of peft, in the UNet's attention and the text encoder's."""
    old_names = {
        f"{UNET}.to_q": f"{UNET}.processor.to_q_lora",
        f"{UNET}.to_out.0": f"{UNET}.processor.to_out_lora",
        f"{ENCODER}.self_attn.out_proj": f"{ENCODER}.self_attn.to_out_lora",
    }
    new, old = {}, {}
    for layer, old_name in old_names.items():
        factors = pair(layer, shapes[layer])
        new |= factors
        old |= dict(zip((f"{old_name}.down.weight", f"{old_name}.up.weight"), factors.values(), strict=True))
    write_safetensors(tmp_path / "new.safetensors", new)
    write_safetensors(tmp_path / "old.safetensors", old)
    picture = ours(tiny_model, tmp_path / "new", lora=str(tmp_path / "new.safetensors"))
    assert distance(picture, ours(tiny_model, tmp_path / "base")) > 8
    assert distance(picture, ours(tiny_model, tmp_path / "old", lora=str(tmp_path / "old.safetensors"))) <= 1


def bfloat16(arrays: Arrays, file: Path) -> Arrays:
    """Write numbers as bfloat16, which NumPy lacks; returns what they then are."""
    cut = {name: np.asarray(a, np.float32).reshape(-1).view(np.uint32) >> 16 for name, a in arrays.items()}
    header, content = dict[str, Any](), b""
    for name, numbers in cut.items():
        start, content = len(content), content + numbers.astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(np.shape(arrays[name])), "data_offsets": [start, len(content)]}
    head = json.dumps(header).encode()
    file.write_bytes(len(head).to_bytes(8, "little") + head + content)
    return {name: (a << 16).view(np.float32).reshape(np.shape(arrays[name])) for name, a in cut.items()}


def test_other_trainers_files_make_the_same_picture(
    tiny_model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    """Kohya's names, numbers in bfloat16, each layer's alpha as a scalar, and a convolution (LoCon): as in diffusers'
    names and float32.
    """
    beginnings = {"unet": "lora_unet", "text_encoder": "lora_te"}
    convolution = "unet.down_blocks.0.resnets.0.conv1"
    plain, named, kohya = Arrays(), Arrays(), Arrays()
    for layer in (f"{UNET}.to_q", f"{UNET}.to_out.0", f"{ENCODER}.self_attn.out_proj", convolution):
        component, _, rest = layer.partition(".")
        down, up = pair(layer, shapes[layer]).values()
        other = f"{beginnings[component]}_{rest.replace('.', '_')}"
        kohya |= {f"{other}.lora_down.weight": down, f"{other}.lora_up.weight": up, f"{other}.alpha": np.array(3.0)}
        plain |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    rounded = bfloat16(kohya, tmp_path / "kohya.safetensors")
    named |= dict(zip(plain, (a for n, a in rounded.items() if not n.endswith("alpha")), strict=True))
    named = {n: a * np.float32(1.5) if "lora_B" in n else a for n, a in named.items()}  # alpha 3 of rank 2
    write_safetensors(tmp_path / "named.safetensors", named)
    query = {n.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): a for n, a in plain.items() if "to_q" in n}
    bfloat16({**query, f"{UNET}.to_q.alpha": np.array(2.0)}, tmp_path / "scalar.safetensors")
    picture = ours(tiny_model, tmp_path / "named", lora=str(tmp_path / "named.safetensors"))
    assert distance(picture, ours(tiny_model, tmp_path / "base")) > 8
    assert distance(picture, ours(tiny_model, tmp_path / "kohya", lora=str(tmp_path / "kohya.safetensors"))) <= 1
    assert distance(picture, ours(tiny_model, tmp_path / "scalar", lora=str(tmp_path / "scalar.safetensors"))) > 1
