"""A model in one file of the original layout: a folder that holds all of it, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.formats.ldm import CLIP, OPEN_CLIP, UNET, VAE, from_published, text_names, to_published
from dreamcore.formats.mindone import ldm_name
from dreamcore.formats.renaming import cast, read_entries
from dreamcore.formats.tensors import Entry, Tensors, as_float, write_tensors
from dreamcore.formats.torch_bin import write_bin
from dreamcore.models import single_file
from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import locate
from dreamcore.models.single_file import convert_single_file, open_part, open_single_file
from dreamcore.models.to_original import write_single_file

from ..support.ldm import CONFIG, CONFIG_2, LAYERS, small_arrays

EXTRA = {
    "betas": (4,),
    "alphas_cumprod": (4,),
    "model_ema.decay": (),
    "model_ema.diffusion_modelout0weight": (3,),
    f"{VAE}loss.logvar": (),
    f"{CLIP}embeddings.position_ids": (1, 77),
}
EXTRA_2 = {
    f"{OPEN_CLIP}logit_scale": (),
    f"{OPEN_CLIP}text_projection": (32, 32),
    f"{OPEN_CLIP}transformer.resblocks.23.ln_1.weight": (32,),
    "sqrt_alphas_cumprod": (4,),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dreambooth" / "models"


def original(second: bool = False) -> dict[str, Entry]:
    """A small Stable Diffusion in LDM's names; version 1's text encoder is CLIP's of transformers."""
    arrays = {ldm_name(name): value for name, value in small_arrays(second).items()}
    if not second:
        words = {name.removeprefix(OPEN_CLIP): arrays.pop(name) for name in list(arrays) if name.startswith(OPEN_CLIP)}
        clip = from_published(to_published(words, text_names(LAYERS, True), "x"), text_names(LAYERS, False), "x")
        arrays |= {CLIP + name: value for name, value in clip.items()}
    return {name: Entry.of(value) for name, value in arrays.items()}


def written(
    folder: Path, second: bool = False, extra: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Path, Path]:
    file, yaml = folder / "sd.safetensors", folder / "sd.yaml"
    more = {name: Entry.of(np.zeros(shape, np.float32)) for name, shape in (extra or {}).items()}
    write_tensors(file, original(second) | more)
    yaml.write_text(CONFIG_2 if second else CONFIG, encoding="utf-8")
    return file, yaml


@pytest.mark.parametrize(("second", "extra"), [(False, EXTRA), (True, EXTRA_2)])
def test_there_and_back_but_for_what_is_listed(second: bool, extra: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    """Every tensor of the file is in the folder, bit by bit, or in the list."""
    file, yaml = written(tmp_path, second, extra)
    (tmp_path / "model").mkdir()
    left_out = convert_single_file(file, tmp_path / "model", original_config=yaml)
    assert left_out == tuple(sorted(extra))
    assert write_single_file(tmp_path / "model", tmp_path / "again.safetensors") == ()
    before, after = Tensors(file), Tensors(tmp_path / "again.safetensors")
    assert set(before) - set(left_out) == set(after)
    assert all(before.dtypes[n] == after.dtypes[n] and np.array_equal(before[n], after[n]) for n in after)
    assert after.metadata["modelspec.prediction_type"] == "epsilon"
    assert after.metadata["modelspec.architecture"] == ("stable-diffusion-v2-512" if second else "stable-diffusion-v1")
    model = ModelFolder.open(str(tmp_path / "model"))
    assert (model.schedule.prediction, model.config("unet").get("use_linear_projection", False)) == ("epsilon", second)


def test_a_folder_describes_what_shapes_do_not_tell(tmp_path: Path) -> None:
    file, yaml = written(tmp_path)
    described = open_single_file(file, original_config=yaml)
    folder = open_single_file(file, original_config=described)
    assert folder != described
    files = [path.relative_to(described) for path in sorted(described.rglob("*")) if path.is_file()]
    assert [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()] == files
    for name in files:
        if name.suffix == ".json":
            assert json.loads((folder / name).read_text()) == json.loads((described / name).read_text())
        else:
            assert (folder / name).read_bytes() == (described / name).read_bytes()


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "F16"), ("bf16", "BF16")])
def test_types_are_kept(precision: str, kind: str, tmp_path: Path) -> None:
    file, yaml = written(tmp_path)
    half = tmp_path / "half.safetensors"
    described = open_single_file(file, original_config=yaml)
    write_single_file(described, half, dtype=precision)
    assert set(Tensors(half).dtypes.values()) == {kind}
    wanted = cast(Tensors(file).entry(f"{UNET}out.2.weight"), kind)
    assert np.array_equal(as_float(Tensors(half).entry(f"{UNET}out.2.weight")), as_float(wanted))
    folder = open_single_file(half, original_config=described)
    model = ModelFolder.open(str(folder))
    for component in model.networks:
        assert {entry.dtype for entry in read_entries(model.weight_files(component)).values()} == {kind}
    assert model.config("text_encoder")["torch_dtype"] == {"F16": "float16", "BF16": "bfloat16"}[kind]


def test_it_is_made_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, yaml = written(tmp_path)
    convert, calls = single_file.fill_folder, []

    def counted(*arguments: Any) -> None:
        calls.append(arguments)
        convert(*arguments)

    monkeypatch.setattr(single_file, "fill_folder", counted)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: locate(str(file), None, None, original_config=str(yaml)), range(4)))
    assert len(folders) == len(calls) == 1
    yaml.write_text(CONFIG.replace("num_heads: 4", "num_heads: 2"), encoding="utf-8")
    assert open_single_file(file, original_config=yaml) not in folders, "another description makes another model"


def test_nothing_is_left_of_what_fails(tmp_path: Path, cache: Path) -> None:
    file, yaml = written(tmp_path, extra={"strange.weight": (1,)})
    with pytest.raises(ConfigError, match=r"sd.safetensors: unexpected keys: strange.weight"):
        open_single_file(file, original_config=yaml)
    write_tensors(file, {name: entry for name, entry in original().items() if not name.startswith(f"{UNET}out.2")})
    with pytest.raises(ConfigError, match=r"sd.safetensors: missing keys: out.2.weight"):
        open_single_file(file, original_config=yaml)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_denoiser_alone(tmp_path: Path) -> None:
    """It is no model, and takes the place of another's."""
    file, yaml = written(tmp_path)
    alone = tmp_path / "unet.safetensors"
    turned = {n: Entry.of(-e.read()) for n, e in original().items() if n.startswith(UNET)}
    write_tensors(alone, turned)
    lacks = r"unet.safetensors: holds Stable Diffusion 1's unet, and lacks vae, text_encoder; give the folder"
    with pytest.raises(ConfigError, match=f"{lacks} of a whole model, and this file as --pretrained_unet_name_or_path"):
        open_single_file(alone, original_config=yaml)
    model = open_single_file(file, original_config=yaml)
    folder = open_part(alone, "unet", model)
    assert (folder / "config.json").read_bytes() == (model / "unet" / "config.json").read_bytes()
    found, before = (Tensors(path / "diffusion_pytorch_model.safetensors") for path in (folder, model / "unet"))
    assert found.keys() == before.keys() and all(np.array_equal(found[name], -before[name]) for name in found)
    with pytest.raises(ConfigError, match=r"unet.safetensors: holds Stable Diffusion 1's unet, and no vae"):
        open_part(alone, "vae", model)
    config = model / "unet" / "config.json"
    config.write_text(config.read_text().replace('"layers_per_block": 1', '"layers_per_block": 2'))
    with pytest.raises(ConfigError, match=r"unet/config.json: describes UNetGeometry.*layers=2.*has UNetGeometry"):
        open_part(alone, "unet", model)


def test_an_autoencoder_alone(tmp_path: Path) -> None:
    file, yaml = written(tmp_path)
    model = open_single_file(file, original_config=yaml)
    vae = {name.removeprefix(VAE): entry for name, entry in original().items() if name.startswith(VAE)}
    write_tensors(tmp_path / "vae.safetensors", vae)
    folder = open_part(tmp_path / "vae.safetensors", "vae", model)
    assert (folder / "diffusion_pytorch_model.safetensors").read_bytes() == (
        model / "vae" / "diffusion_pytorch_model.safetensors"
    ).read_bytes()
    with pytest.raises(ConfigError, match=r"vae.safetensors: holds an autoencoder alone, which is no model"):
        open_single_file(tmp_path / "vae.safetensors")


def test_pickles_only_where_they_are_allowed(tmp_path: Path) -> None:
    file, yaml = written(tmp_path)
    write_bin(tmp_path / "sd.ckpt", {name: entry.read() for name, entry in original().items()})
    with pytest.raises(ConfigError, match=r"sd.ckpt: holds pickled weights; --allow_pickle"):
        open_single_file(tmp_path / "sd.ckpt", original_config=yaml)
    pickled = open_single_file(tmp_path / "sd.ckpt", original_config=yaml, allow_pickle=True)
    folder = open_single_file(file, original_config=yaml)
    weights = Path("unet") / "diffusion_pytorch_model.safetensors"
    assert (pickled / weights).read_bytes() == (folder / weights).read_bytes()


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    file, yaml = written(tmp_path)
    misnamed = file.rename(tmp_path / "sd.ckpt")
    assert ModelFolder.open(str(open_single_file(misnamed, original_config=yaml)))
    for name, content, reason in (
        ("a.gguf", b"GGUF" + bytes(20), "GGUF, quantized weights"),
        ("a.safetensors", b"GGUF" + bytes(20), "GGUF, quantized weights"),
        ("a.bin", b"something else", "is no model: neither a folder, nor weights in one file"),
        ("a.ckpt", b"something else", "no checkpoint of MindSpore's"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=f"{name}: .*{reason}|{name}: {reason}"):
            locate(str(tmp_path / name), None, None)
    with pytest.raises(ConfigError, match=r"nothing.safetensors: no such file"):
        locate(str(tmp_path / "nothing.safetensors"), None, None)
    with pytest.raises(ConfigError, match=r"original_config: .*nowhere: no such file or folder"):
        open_single_file(misnamed, original_config=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"revision: 'main' was given, but .*sd.ckpt is a file"):
        locate(str(misnamed), "main", None)


def test_parts_of_a_folder_that_have_no_place(tmp_path: Path) -> None:
    file, yaml = written(tmp_path)
    (folder := tmp_path / "model").mkdir()
    convert_single_file(file, folder, original_config=yaml)
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    write_tensors(folder / "safety_checker" / "model.safetensors", {"concepts": Entry.of(np.zeros(3, np.float32))})
    weights = folder / "text_encoder" / "model.safetensors"
    positions = {"text_model.embeddings.position_ids": Entry.of(np.arange(77))}
    more = {name: Entry.of(np.array(value)) for name, value in Tensors(weights).items()} | positions
    write_tensors(weights, more)
    wanted = ("safety_checker/concepts", "text_encoder/text_model.embeddings.position_ids")
    assert write_single_file(folder, tmp_path / "again.safetensors") == wanted
    assert Tensors(tmp_path / "again.safetensors").keys() == Tensors(file).keys()
    index["text_encoder"] = ["transformers", "BertModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"text_encoder: a BertModel has no place in Stable Diffusion 1's"):
        write_single_file(folder, tmp_path / "again.safetensors")
