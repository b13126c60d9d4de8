"""Single files of the original layouts against diffusers: its tables of names, its images; folders there and back."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.formats.flux import FluxGeometry, flux_names, flux_shapes
from dreamcore.formats.ldm import UNET, UNetGeometry, from_published, text_names, to_published, unet_names
from dreamcore.formats.ldm_geometry import unet_shapes
from dreamcore.formats.renaming import Names, read_entries
from dreamcore.formats.sd3 import SD3Geometry, sd3_names, sd3_shapes
from dreamcore.formats.tensors import Tensors, write_tensors
from dreamcore.formats.weights import Arrays, known_names
from dreamcore.models.folder import ModelFolder
from dreamcore.models.single_file import convert_single_file
from dreamcore.models.to_original import write_single_file

from ..support import needs
from ..support.tiny_families import write_sd3, write_sdxl

pytestmark = needs.torch

Models = Callable[[str], Path]


def arrays_of(network: Any) -> Arrays:
    return {name: value.detach().numpy() for name, value in network.state_dict().items()}


def through_the_file(arrays: Arrays, names: Names, convert: Callable[[dict[str, Any]], Any], prefix: str) -> Arrays:
    """What our names and diffusers' converter make of a network's arrays, ours first; returns them in the file's."""
    import torch

    old = from_published(arrays, names, "x")
    found = convert({prefix + name: torch.from_numpy(np.array(value)) for name, value in old.items()})
    for again in (found, to_published(old, names, "x")):
        assert again.keys() == arrays.keys()
        assert all(np.array_equal(np.asarray(again[name]), value) for name, value in arrays.items())
    return old


def test_unet_of_xl() -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 3),
        norm_num_groups=8,
        cross_attention_dim=80,
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=72,
    )
    geometry = UNetGeometry((32, 64, 64), 2, (False, True, True), (1, 2, 3), labelled=True)
    convert: Any = lambda old: convert_ldm_unet_checkpoint(old, dict(unet.config))  # noqa: E731
    shapes = unet_shapes(through_the_file(arrays_of(unet), unet_names(geometry), convert, UNET), "x")
    assert (shapes.geometry, shapes.labels, shapes.context, shapes.linear) == (geometry, 72, 80, True)


def test_open_clip_with_a_projection() -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 20}
    network = CLIPTextModelWithProjection(CLIPTextConfig(num_hidden_layers=2, projection_dim=16, **sizes))
    arrays = {name: value for name, value in arrays_of(network).items() if "position_ids" not in name}
    convert: Any = lambda old: convert_open_clip_checkpoint(network, old, "x.")  # noqa: E731
    through_the_file(arrays, text_names(2, open_clip=True, projects=True), convert, "x.")


@pytest.mark.parametrize("newer", [False, True])
def test_transformer_of_sd3(newer: bool) -> None:
    from diffusers import SD3Transformer2DModel
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    transformer = SD3Transformer2DModel(
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=24,
        **({"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)} if newer else {}),
    )
    geometry = SD3Geometry(3, newer, (0, 1) if newer else ())
    convert = convert_sd3_transformer_checkpoint_to_diffusers
    shapes = sd3_shapes(through_the_file(arrays_of(transformer), sd3_names(geometry), convert, UNET), "x")
    assert (shapes.geometry, shapes.width, shapes.positions, shapes.head) == (geometry, 32, 24, 8 if newer else None)


def of_width_32(function: Any) -> Any:
    """diffusers' converter of Flux knows the width of the published one alone."""
    constants = tuple(32 if constant == 3072 else constant for constant in function.__code__.co_consts)
    assert constants != function.__code__.co_consts
    return types.FunctionType(function.__code__.replace(co_consts=constants), function.__globals__)


@pytest.mark.parametrize("guided", [False, True])
def test_transformer_of_flux(guided: bool) -> None:
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        pooled_projection_dim=24,
        guidance_embeds=guided,
        axes_dims_rope=(4, 6, 6),
    )
    geometry = FluxGeometry(2, 3, guided)
    convert = of_width_32(convert_flux_transformer_checkpoint_to_diffusers)
    shapes = flux_shapes(through_the_file(arrays_of(transformer), flux_names(geometry), convert, ""), "x")
    assert (shapes.geometry, shapes.width, shapes.head, shapes.words) == (geometry, 32, 16, 48)


def tensors_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """COMPONENT/NAME, as networks have it -> type and content."""
    model = ModelFolder.open(str(folder))
    found = {}
    for component in model.networks:
        entries = read_entries(model.weight_files(component))
        prefixed = {f"text_model.{name.removeprefix('text_model.')}" for name in entries if "projection" not in name}
        wanted = prefixed if component.startswith("text_encoder") and "shared.weight" not in entries else set(entries)
        for name, entry in known_names(entries, wanted).items():
            found[f"{component}/{name}"] = entry.dtype, entry.read().tobytes()
    return found


@pytest.mark.parametrize("name", ["ldm1", "ldm2", "sdxl", "edm", "sd3", "sd35", "sd3 without t5", "flux"])
def test_a_folder_there_and_back(name: str, family_models: Models, tmp_path: Path) -> None:
    """Every tensor of every network, bit by bit, and the file again byte for byte."""
    match name:
        case "edm":
            model = write_sdxl(tmp_path / "model", edm=True)
        case "sd35":
            model = write_sd3(tmp_path / "model", large=True)
        case "sd3 without t5":
            model = write_sd3(tmp_path / "model", t5=False)
        case _:
            model = family_models(name)
    file, again = tmp_path / "model.safetensors", tmp_path / "again"
    assert write_single_file(model, file) == ()
    again.mkdir()
    assert convert_single_file(file, again, original_config=model) == ()
    assert tensors_of(again) == tensors_of(model)
    before, after = ModelFolder.open(str(model)), ModelFolder.open(str(again))
    assert after.config("scheduler") == before.config("scheduler") and after.networks == before.networks
    write_single_file(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_projection_that_is_left_out_is_the_identity(family_models: Models, tmp_path: Path) -> None:
    """As in the file that Stable Diffusion 3 was published in, and as diffusers reads it."""
    model, file = family_models("sd3"), tmp_path / "model.safetensors"
    write_single_file(model, file)
    tensors = Tensors(file).entries()
    del tensors["text_encoders.clip_l.transformer.text_projection.weight"]
    write_tensors(tmp_path / "less.safetensors", tensors)
    (tmp_path / "again").mkdir()
    convert_single_file(tmp_path / "less.safetensors", tmp_path / "again", original_config=model)
    weights = Tensors(tmp_path / "again" / "text_encoder" / "model.safetensors")
    width = ModelFolder.open(str(model)).config("text_encoder")["hidden_size"]
    assert np.array_equal(weights["text_projection.weight"], np.eye(width))


@pytest.mark.parametrize("name", ["ldm1", "ldm2", "sdxl", "sd3", "flux"])
def test_diffusers_makes_the_same_image_of_the_file(
    name: str, family_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it cannot load of tiny models it gets from the folder: SD 3's first text encoder, whose projection it takes
    for the identity, and T5, whose table it leaves empty with transformers 5."""
    import diffusers
    from diffusers.loaders import single_file_model

    flux = single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    monkeypatch.setitem(flux, "checkpoint_mapping_fn", of_width_32(flux["checkpoint_mapping_fn"]))
    folder, file = family_models(name), tmp_path / "model.safetensors"
    write_single_file(folder, file)
    model = ModelFolder.open(str(folder))
    pipeline = getattr(diffusers, model.index["_class_name"])
    more = {"safety_checker": None} if name.startswith("ldm") else {}
    from_folder = pipeline.from_pretrained(folder, **more)
    lent = {"sd3": ("text_encoder", "text_encoder_3"), "flux": ("text_encoder_2",)}.get(name, ())
    more |= {component: getattr(from_folder, component) for component in lent}
    from_file = pipeline.from_single_file(str(file), config=str(folder), local_files_only=True, **more)
    first, second = image(from_folder), image(from_file)
    assert np.array_equal(first, second) and np.ptp(first) > 20


def image(pipeline: Any) -> Any:
    import torch

    pipeline.set_progress_bar_config(disable=True)
    words = {"prompt": "a photo of sks dog", "num_inference_steps": 2, "height": 16, "width": 16}
    return np.asarray(pipeline(**words, generator=torch.manual_seed(0)).images[0]).astype(int)


def test_t5s_tokenizer(tmp_path: Path) -> None:
    """Numbers of google/t5-v1_1-xxl's, as its repository's tokenizer.json gives them."""
    from transformers import T5TokenizerFast

    from dreamcore.formats.t5_vocabulary import write_t5_tokenizer

    write_t5_tokenizer(tmp_path / "tokenizer")
    tokenizer = T5TokenizerFast.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer("a photo of sks dog").input_ids == [3, 9, 1202, 13, 3, 7, 157, 7, 1782, 1]
    assert tokenizer("\ufb01 spaces   end <extra_id_3>").input_ids[-2:] == [32096, 1]
    assert (tokenizer.model_max_length, len(tokenizer)) == (512, 32100)
