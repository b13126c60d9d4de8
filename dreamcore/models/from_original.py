"""A model's tensors in the original layout -> its folder in diffusers' layout: configurations, tokenizers, weights.

What shapes do not tell is said by a description, a YAML file in the original layout (Stable Diffusion 1 and 2) or the
folder of a model that is built alike, or else is what published models have.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..families import FAMILIES
from ..formats.clip_vocabulary import END, write_clip_tokenizer
from ..formats.ldm_geometry import TextShapes, UNetShapes, VAEShapes
from ..formats.renaming import cast, published_entries
from ..formats.single_files import AUTOENCODER, SDXL, Contents, Part
from ..formats.t5_names import T5Shapes
from ..formats.t5_vocabulary import write_t5_tokenizer
from ..formats.tensors import Entry, as_float, write_tensors
from ..formats.weights import component_file
from ..io.hashing import file_sha256
from ..io.names import INDEX
from . import ldm_folder, original_folder
from .fields import read_json
from .ldm_config import VERSIONS, Facts, check_version, facts
from .ldm_config import Shapes as OldShapes
from .original_geometry import Shapes, configured_geometry, geometry_in, names_of, shapes_of

Files = dict[str, dict[str, Any]]
"""Paths in a model's folder -> what the JSON files there say."""
_NUMBERS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_V = ("v", "v_prediction", "v-prediction", "vprediction")


@dataclass(frozen=True)
class Said:
    """What is said of a model beside its weights.

    Args:
        what: the file, for messages.
        described: a YAML file, or a folder in diffusers' layout.
        version: which Stable Diffusion it is.
        metadata: the file's own.
    """

    what: str
    described: Path | None = None
    version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def fill_folder(folder: Path, found: Contents, said: Said) -> None:
    """Fill an empty folder with what a model's tensors become.

    Raises:
        ConfigError: parts or tensors are missing or left over, what is said contradicts them, or what has to be known
            is open.
    """
    check_version(said.version)
    if found.missing or found.layout == AUTOENCODER:
        raise ConfigError(_lacking(found, said.what))
    parts = [part for part in found.layout.parts if part.component in found.parts]
    tensors = {part.component: _projecting(found.parts[part.component], part) for part in parts}
    shapes = {part.component: shapes_of(part, tensors[part.component], said.what) for part in parts}
    entries = {
        part.component: published_entries(
            tensors[part.component], names_of(part, geometry_in(shapes[part.component])), said.what
        )
        for part in parts
    }
    numbers = {component: numbers_of(found) for component, found in entries.items()}
    if said.described is not None and said.described.is_dir():
        files = _described(said.described, found, shapes, numbers, said.what)
        _copy_tokenizers(said.described, folder, found)
    else:
        files = known_files(found, shapes, numbers, said)
        _write_tokenizers(folder, found, shapes)
    for name, values in files.items():
        _write_json(folder / name, values)
    for component, weights in entries.items():
        write_tensors(component_file(folder / component), weights)


def fill_part(folder: Path, found: Contents, component: str, described: Path, what: str) -> None:
    """Fill an empty folder with one network alone, in place of one of a model.

    Args:
        described: that model's folder, whose configuration it has.

    Raises:
        ConfigError: it is not there, or not built as that model's is.
    """
    part = next(part for part in found.layout.parts if part.component == component)
    tensors = _projecting(found.parts[component], part)
    shapes = {component: shapes_of(part, tensors, what)}
    entries = published_entries(tensors, names_of(part, geometry_in(shapes[component])), what)
    _write_json(folder / component / "config.json", _configuration(described, part, shapes[component], None, what))
    write_tensors(component_file(folder / component), entries)


def identity_of(described: Path | None) -> str | None:
    """What tells one description from another: its content, of a folder that of all but its weights.

    Raises:
        ConfigError: it is not there.
    """
    if described is None:
        return None
    if described.is_file():
        return file_sha256(described)
    if not described.is_dir():
        raise ConfigError(f"original_config: {described}: no such file or folder")
    files = [file for pattern in ("*.json", "*/*") for file in described.glob(pattern) if file.is_file()]
    small = sorted(file for file in files if file.suffix not in (".safetensors", ".bin", ".pdparams", ".png", ".jsonl"))
    return "\n".join(f"{file.relative_to(described).as_posix()} {file_sha256(file)}" for file in small)


def numbers_of(entries: Mapping[str, Entry]) -> str:
    """The type that holds all of a network's numbers: transformers takes what the configuration says for all."""
    there = {entry.dtype for entry in entries.values()} & _NUMBERS.keys()
    return _NUMBERS[there.pop()] if len(there) == 1 else "float64" if "F64" in there else "float32"


def _lacking(found: Contents, what: str) -> str:
    if found.layout == AUTOENCODER:
        return f"{what}: holds an autoencoder alone, which is no model; give it as --pretrained_vae_model_name_or_path"
    denoiser = found.layout.denoiser.component
    message = f"{what}: holds {found.layout.name}'s {', '.join(found.parts)}, and lacks {', '.join(found.missing)}"
    if denoiser in found.parts:
        return f"{message}; give the folder of a whole model, and this file as --pretrained_unet_name_or_path"
    return f"{message}; give a whole model"


def _projecting(tensors: dict[str, Entry], part: Part) -> dict[str, Entry]:
    """With Stable Diffusion 3's projection of CLIP-L, of which files hold none where it is the identity."""
    table = "text_model.embeddings.token_embedding.weight"
    if part.kind == "clip" and part.projects and "text_projection.weight" not in tensors and table in tensors:
        identity = Entry.of(np.eye(tensors[table].shape[-1], dtype=np.float32))
        return tensors | {"text_projection.weight": cast(identity, tensors[table].dtype)}
    return tensors


def _described(
    described: Path, found: Contents, shapes: Mapping[str, Shapes], numbers: Mapping[str, str], what: str
) -> Files:
    """The JSON files of the folder that describes the model, after a comparison with what shapes tell."""
    index = read_json(described / INDEX)
    if index.get("_class_name") != found.layout.pipeline:
        raise ConfigError(
            f"{described / INDEX}: describes a {index.get('_class_name')!r:.80}; {what} holds a {found.layout.name}, "
            f"whose class is {found.layout.pipeline}"
        )
    families = FAMILIES[found.layout.pipeline].text_encoders
    kept = {*shapes, "scheduler", *(encoder.tokenizer for encoder in families if encoder.network in shapes)}
    for name, value in index.items():
        if isinstance(value, list) and len(value) == 2 and name not in kept:
            index[name] = [None, None]
    files: Files = {INDEX: index}
    for part in found.layout.parts:
        if part.component in shapes:
            said = _configuration(described, part, shapes[part.component], numbers[part.component], what)
            files[f"{part.component}/config.json"] = said
    schedule = "scheduler/scheduler_config.json"
    return files | {schedule: read_json(described / schedule)}


def _configuration(described: Path, part: Part, shapes: Shapes, numbers: str | None, what: str) -> dict[str, Any]:
    """A component's configuration from a folder; of a text encoder, with the type of the numbers that are there."""
    file = described / part.component / "config.json"
    config = read_json(file)
    geometry, there = configured_geometry(part, config, file), geometry_in(shapes)
    if geometry != there:
        raise ConfigError(f"{file}: describes {geometry}, where {what} has {there}")
    if part.kind in ("clip", "open_clip", "t5") and numbers is not None:
        config = {key: value for key, value in config.items() if key != "dtype"} | {"torch_dtype": numbers}
    return config


def _copy_tokenizers(described: Path, folder: Path, found: Contents) -> None:
    for encoder in FAMILIES[found.layout.pipeline].text_encoders:
        if encoder.network in found.parts:
            if not (described / encoder.tokenizer).is_dir():
                raise ConfigError(f"original_config: {described}: {encoder.tokenizer} is missing")
            shutil.copytree(described / encoder.tokenizer, folder / encoder.tokenizer)


def known_files(found: Contents, shapes: dict[str, Shapes], numbers: Mapping[str, str], said: Said) -> Files:
    """The JSON files of a model of a published kind."""
    if found.layout.pipeline == ldm_folder.PIPELINE:
        return _known_ldm(found, shapes, numbers, said)
    if said.described is not None:
        raise ConfigError(
            f"original_config: {said.described}: a YAML file describes Stable Diffusion 1 and 2 alone; of a "
            f"{found.layout.name} give a folder in diffusers' layout"
        )
    if said.version is not None:
        raise ConfigError(f"sd_version: {said.version} was given; {said.what} holds a {found.layout.name}")
    known = Facts(True, _prediction(found, said) or "epsilon", 1, 1, quick_gelu=True)
    files: Files = {}
    for part in found.layout.parts:
        if part.component in shapes:
            files[f"{part.component}/config.json"] = _component_json(part, shapes, numbers, found, known, said.what)
    scheduler = _scheduler_json(found, known)
    files["scheduler/scheduler_config.json"] = scheduler
    return {INDEX: original_folder.pipeline_json(found.layout, set(shapes), scheduler["_class_name"])} | files


def _component_json(
    part: Part, shapes: Mapping[str, Shapes], numbers: Mapping[str, str], found: Contents, known: Facts, what: str
) -> dict[str, Any]:
    shape: Any = shapes[part.component]
    match part.kind:
        case "unet":
            heads = [_heads(channels, what) for channels in shape.geometry.channels]
            return original_folder.xl_unet_json(shape, replace(known, heads=heads))
        case "vae":
            return original_folder.latents_json(shape, found.layout, known) | _edm_latents(found)
        case "t5":
            return original_folder.t5_json(shape, numbers[part.component], what)
        case "sd3":
            return original_folder.sd3_json(shape, what)
        case "flux":
            return original_folder.flux_json(shape, what)
    return original_folder.clip_json(shape, part.component == "text_encoder", numbers[part.component], what)


def _heads(channels: int, what: str) -> int:
    if channels % original_folder.HEAD:
        raise ConfigError(f"{what}: a UNet of {channels} channels is {original_folder.unknown()}")
    return channels // original_folder.HEAD


def _edm_latents(found: Contents) -> dict[str, Any]:
    if not {"edm_mean", "edm_std"} <= found.facts.keys():
        return {}
    mean, std = (as_float(found.facts[name]).ravel().tolist() for name in ("edm_mean", "edm_std"))
    return {"latents_mean": mean, "latents_std": std, "scaling_factor": 0.5}


def _scheduler_json(found: Contents, known: Facts) -> dict[str, Any]:
    if found.layout == SDXL:
        if "edm_mean" in found.facts:
            return original_folder.edm_json()
        return original_folder.euler_json(known.prediction, "ztsnr" in found.facts)
    denoiser: Any = geometry_in(shapes_of(found.layout.denoiser, found.parts[found.layout.denoiser.component], ""))
    return original_folder.flow_json(denoiser.guided if found.layout.name == "Flux" else None)


def _known_ldm(found: Contents, shapes: Mapping[str, Shapes], numbers: Mapping[str, str], said: Said) -> Files:
    """Of a Stable Diffusion 1 or 2."""
    unet, vae, text = (shapes[component] for component in ("unet", "vae", "text_encoder"))
    assert isinstance(unet, UNetShapes) and isinstance(vae, VAEShapes) and isinstance(text, TextShapes), "LDM's parts"
    hint = _prediction(found, said) if said.described is None and said.version is None else None
    second = {kind: version for version, kind in VERSIONS.items() if version[0] == "2"}
    version = second[hint] if hint is not None and unet.linear else said.version
    known = facts(OldShapes(unet, vae, text), said.described, version, said.what)
    known = replace(known, prediction=hint or known.prediction)
    without_signal = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in found.facts else {}
    return {
        INDEX: ldm_folder.index_json(known),
        "unet/config.json": ldm_folder.unet_json(unet, known),
        "vae/config.json": ldm_folder.vae_json(vae, known),
        "text_encoder/config.json": ldm_folder.text_json(text, known, numbers["text_encoder"]),
        "scheduler/scheduler_config.json": ldm_folder.scheduler_json(known) | without_signal,
    }


def _prediction(found: Contents, said: Said) -> str | None:
    """What the file says that the model predicts, if it says."""
    if "v_pred" in found.facts:
        return "v_prediction"
    if (told := said.metadata.get("modelspec.prediction_type", "").lower()) in ("epsilon", *_V):
        return "v_prediction" if told in _V else "epsilon"
    architecture = said.metadata.get("modelspec.architecture", "")
    if architecture.startswith("stable-diffusion-v2"):
        return "v_prediction" if architecture.split("/")[0].endswith("-v") else "epsilon"
    return None


def _write_tokenizers(folder: Path, found: Contents, shapes: Mapping[str, Shapes]) -> None:
    for encoder in FAMILIES[found.layout.pipeline].text_encoders:
        if isinstance(shapes.get(encoder.network), T5Shapes):
            write_t5_tokenizer(folder / encoder.tokenizer)
        elif encoder.network in shapes:
            unet = shapes.get("unet")
            old = found.layout.pipeline == ldm_folder.PIPELINE
            exclaims = isinstance(unet, UNetShapes) and unet.linear if old else encoder.network != "text_encoder"
            write_clip_tokenizer(folder / encoder.tokenizer, "!" if exclaims else END)


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
