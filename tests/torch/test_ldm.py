"""LDM's names against diffusers' own converters, and a model through MindONE's checkpoint: the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.formats.clip_vocabulary import END, SIZE, vocabulary, write_clip_tokenizer
from dreamcore.formats.ldm import (
    CLIP,
    OPEN_CLIP,
    UNET,
    VAE,
    UNetGeometry,
    VAEGeometry,
    from_published,
    text_names,
    to_published,
    unet_names,
    vae_names,
)
from dreamcore.formats.mindone import mindone_name
from dreamcore.formats.mindspore_ckpt import read_ckpt, write_ckpt
from dreamcore.formats.weights import Arrays, read_weights
from dreamcore.models.folder import ModelFolder
from dreamcore.models.ldm_checkpoint import COMPONENTS, open_ldm_checkpoint
from dreamcore.models.ldm_export import write_ldm_checkpoint

from ..support import needs
from ..support.ldm import CONFIG, CONFIG_2_V, write_small_model

pytestmark = needs.torch

UNETS = [UNetGeometry((32, 64), 1, (True, False)), UNetGeometry((32, 64, 64), 2, (True, True, False))]


def arrays_of(network: Any) -> Arrays:
    return {name: value.detach().numpy() for name, value in network.state_dict().items() if "position_ids" not in name}


def tensors(arrays: Arrays, prefix: str) -> dict[str, Any]:
    import torch

    return {prefix + name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def same(found: dict[str, Any], wanted: Arrays) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(np.asarray(found[k]), v) for k, v in wanted.items())


def unet_of(geometry: UNetGeometry, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=geometry.channels,
        layers_per_block=geometry.layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in geometry.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(geometry.attention)),
        **{"cross_attention_dim": 16, "attention_head_dim": 4} | more,
    )


def vae_of(geometry: VAEGeometry) -> Any:
    from diffusers import AutoencoderKL

    levels = len(geometry.channels)
    return AutoencoderKL(
        block_out_channels=geometry.channels,
        layers_per_block=geometry.layers,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )


def clip_of(layers: int, **more: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 20} | more
    return CLIPTextModel(CLIPTextConfig(num_hidden_layers=layers, max_position_embeddings=77, **sizes))


def prefixed(arrays: Arrays) -> Arrays:
    """transformers 5 leaves out what published names begin with."""
    return {f"text_model.{name.removeprefix('text_model.')}": value for name, value in arrays.items()}


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("geometry", UNETS)
def test_unet_as_diffusers_converts_it(geometry: UNetGeometry, linear: bool) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = unet_of(geometry, use_linear_projection=linear)
    arrays, names = arrays_of(unet), unet_names(geometry)
    old = from_published(arrays, names, "x")
    assert same(convert_ldm_unet_checkpoint(tensors(old, UNET), dict(unet.config)), arrays)
    assert same(to_published(old, names, "x"), arrays)


@pytest.mark.parametrize("geometry", [VAEGeometry((32, 64), 1), VAEGeometry((32, 32, 64, 64), 2)])
def test_vae_as_diffusers_converts_it(geometry: VAEGeometry) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae = vae_of(geometry)
    arrays, names = arrays_of(vae), vae_names(geometry)
    old = from_published(arrays, names, "x")
    assert same(convert_ldm_vae_checkpoint(tensors(old, VAE), dict(vae.config)), arrays)
    assert same(to_published(old, names, "x"), arrays)


def test_text_encoders_as_diffusers_converts_them() -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    encoder = clip_of(3)
    arrays = prefixed(arrays_of(encoder))
    clip = from_published(arrays, text_names(3, open_clip=False), "x")
    assert same(prefixed(convert_ldm_clip_checkpoint(tensors(clip, CLIP))), arrays)
    names = text_names(3, open_clip=True)
    open_clip = from_published(arrays, names, "x")
    assert same(prefixed(convert_open_clip_checkpoint(encoder, tensors(open_clip, OPEN_CLIP))), arrays)
    assert same(to_published(open_clip, names, "x"), arrays)


def test_names_and_shapes_are_those_that_mindone_lists() -> None:
    """Its ms_names_v2.txt, a line NAME#SHAPE#TYPE for each array of SD 2, has 101,581 characters in 1,214 lines."""
    import torch

    with torch.device("meta"):
        unet = unet_of(UNetGeometry(), cross_attention_dim=1024, use_linear_projection=True)
        vae = vae_of(VAEGeometry())
        text = clip_of(23, hidden_size=1024, intermediate_size=4096, num_attention_heads=16, vocab_size=SIZE)
    parts = [
        (UNET, unet, unet_names(UNetGeometry())),
        (VAE, vae, vae_names(VAEGeometry())),
        (OPEN_CLIP, text, text_names(23, open_clip=True)),
    ]
    lines = []
    for part, network, names in parts:
        empty = {name: np.broadcast_to(np.int8(0), tuple(value.shape)) for name, value in network.state_dict().items()}
        old = from_published(prefixed(empty) if part == OPEN_CLIP else empty, names, "x")
        for name, value in old.items():
            theirs = mindone_name(part + name)
            if part == VAE:  # see formats/mindone.py
                theirs = theirs.replace(".gamma", ".weight").replace(".beta", ".bias")
            kind = "Float16" if theirs.endswith(("embedding_table", "positional_embedding")) else "Float32"
            lines.append(f"{theirs}#{value.shape}#{kind}\n")
    assert (len(lines), sum(map(len, lines))) == (1214, 101_581)


@pytest.mark.parametrize("second", [False, True])
def test_a_model_through_mindones_checkpoint(second: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    start = write_small_model(tmp_path / "model", second)
    write_ldm_checkpoint(start, tmp_path / "sd.ckpt")
    (tmp_path / "sd.yaml").write_text(CONFIG_2_V if second else CONFIG, encoding="utf-8")
    model = ModelFolder.open(str(open_ldm_checkpoint(tmp_path / "sd.ckpt", tmp_path / "sd.yaml")))
    before = ModelFolder.open(str(start))
    for component in COMPONENTS.values():
        assert same(read_weights(model.weight_files(component)), read_weights(before.weight_files(component)))
    first, again = image(start), image(model.path)
    assert np.array_equal(first, again) and np.ptp(first) > 20


def test_a_table_in_half_precision_makes_no_other_weight_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in MindONE's SD 2."""
    import torch
    from transformers import CLIPTextModel

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_ldm_checkpoint(write_small_model(tmp_path / "model", True), tmp_path / "sd.ckpt")
    (tmp_path / "sd.yaml").write_text(CONFIG_2_V, encoding="utf-8")
    halved = {
        name: value.astype(np.float16) if name.endswith(("embedding_table", "positional_embedding")) else value
        for name, value in read_ckpt(tmp_path / "sd.ckpt").items()
    }
    write_ckpt(tmp_path / "sd.ckpt", halved)
    folder = open_ldm_checkpoint(tmp_path / "sd.ckpt", tmp_path / "sd.yaml")
    encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


def image(folder: Path) -> Any:
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    words = {"prompt": "a photo of sks dog", "num_inference_steps": 2, "height": 16, "width": 16}
    return np.asarray(pipeline(**words, generator=torch.manual_seed(0)).images[0]).astype(int)


@pytest.mark.parametrize(("pad", "number"), [(END, 49407), ("!", 0)])
def test_clips_tokenizer(pad: str, number: int, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    write_clip_tokenizer(tmp_path / "tokenizer", pad)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer("a photo of sks dog").input_ids == [49406, 320, 1125, 539, 48136, 1929, 49407]
    padded = tokenizer("dog", padding="max_length").input_ids
    assert (len(padded), padded[3:]) == (77, [number] * 74)
    assert len(tokenizer) == len(vocabulary()) == SIZE
