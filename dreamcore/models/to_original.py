"""A model's folder in diffusers' layout as one file in its family's original layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..formats.ppdiffusers import PUBLISHED
from ..formats.renaming import cast, original_entries, read_entries
from ..formats.single_files import FLUX, LAYOUTS, SD1, SD2, SD3, SDXL, TIED, Layout, Part
from ..formats.tensors import Entry, write_tensors
from ..formats.weights import IGNORED, known_names
from ..io.names import INDEX
from .folder import ModelFolder
from .original_geometry import configured_geometry, names_of

TYPES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
"""Names of precisions -> safetensors' names of types."""
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "clip": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "open_clip": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "t5": ("T5EncoderModel",),
    "sd3": ("SD3Transformer2DModel",),
    "flux": ("FluxTransformer2DModel",),
}
_ARCHITECTURES = {
    SD1.name: "stable-diffusion-v1",
    SD2.name: "stable-diffusion-v2-512",
    SDXL.name: "stable-diffusion-xl-v1-base",
    SD3.name: "stable-diffusion-3",
    FLUX.name: "flux-1",
}
"""Names of architectures in the metadata that Stability's model specification asks for."""


@dataclass(frozen=True)
class Original:
    """A model as one file has it.

    Args:
        tensors: by the file's names.
        metadata: what the file says of itself: what the model is, and what it predicts.
        left_out: COMPONENT/NAME of what has no place in it, sorted.
    """

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    left_out: tuple[str, ...]


def write_single_file(
    model_folder: Path, file: Path, *, dtype: str | None = None, variant: str | None = None, allow_pickle: bool = False
) -> tuple[str, ...]:
    """Write a folder in diffusers' layout as one file in its family's original layout.

    Args:
        file: .safetensors; what is there is replaced.
        dtype: "fp16", "bf16" or "fp32" for all weights; None keeps each as it is.
        variant: of the folder's weight files.
        allow_pickle: whether the folder's .bin files are read.

    Returns:
        names, COMPONENT/NAME, of what has no place in it, sorted: position numbers, which old folders hold, and
        components that the layout has no room for.

    Raises:
        ConfigError: a family without such a layout, arrays missing or left over, pickled weights that are not allowed.
    """
    original = original_tensors(ModelFolder.open(str(model_folder), None, variant), allow_pickle)
    entries = original.tensors
    if dtype is not None:
        entries = {name: cast(entry, TYPES[dtype]) for name, entry in entries.items()}
    write_tensors(file, entries, original.metadata)
    return original.left_out


def original_tensors(model: ModelFolder, allow_pickle: bool = False) -> Original:
    """A model's tensors under the names of its family's original layout; none of them is read yet.

    Raises:
        ConfigError: a family without such a layout, a network that has no place in it, tensors missing or left over,
            or pickled weights that are not allowed.
    """
    layout = layout_of(model)
    tensors: dict[str, Entry] = {}
    left_out: list[str] = []
    for part in layout.parts:
        if part.optional and model.index.get(part.component) in (None, [None, None]):
            continue
        there = part_entries(model, part, allow_pickle)
        left_out += [f"{part.component}/{name}" for name in there.left_out]
        tensors |= {part.prefixes[0] + name: entry for name, entry in there.tensors.items()}
    left_out += _elsewhere(model, layout, allow_pickle)
    scheduler = model.config("scheduler")
    prediction = scheduler.get("prediction_type")
    tensors |= _facts(model, layout, scheduler)
    return Original(tensors, _metadata(layout, prediction), tuple(sorted(left_out)))


def layout_of(model: ModelFolder) -> Layout:
    """The original layout of a model's family.

    Raises:
        ConfigError: it has none, or one of its networks no place there.
    """
    pipeline = model.index["_class_name"]
    found = [layout for layout in LAYOUTS if layout.pipeline == pipeline]
    if not found:
        raise ConfigError(
            f"{model.path / INDEX}: a {pipeline} has no layout of one file; those of "
            f"{', '.join(layout.pipeline for layout in LAYOUTS[1:])} have"
        )
    layout = found[0]
    if layout == SD1 and model.config("unet").get("use_linear_projection"):
        layout = SD2
    for part in layout.parts:
        named = model.index.get(part.component)
        if part.optional and named in (None, [None, None]):
            continue
        if (name := model.class_name(part.component)) not in _CLASSES[part.kind]:
            raise ConfigError(
                f"{model.path / INDEX}: {part.component}: a {name} has no place in {layout.name}'s single file, which "
                f"holds a {_CLASSES[part.kind][0]} there"
            )
    return layout


def part_entries(model: ModelFolder, part: Part, allow_pickle: bool = False) -> Original:
    """One network's tensors, by the file's names without what they begin with there; names left out without theirs."""
    file = model.folder(part.component) / "config.json"
    names = names_of(part, configured_geometry(part, model.config(part.component), file))
    wanted = {name for published in names.values() for name in published}
    paddles = model.index[part.component][0] in PUBLISHED
    there = read_entries(model.weight_files(part.component), paddles=paddles, allow_pickle=allow_pickle)
    ignored = [name for name in there if name not in wanted and name.endswith(IGNORED)]
    if set(TIED) <= there.keys():
        ignored.append(TIED[0])
    kept = known_names({name: entry for name, entry in there.items() if name not in ignored}, wanted)
    return Original(original_entries(kept, names, str(model.folder(part.component))), {}, tuple(ignored))


def _elsewhere(model: ModelFolder, layout: Layout, allow_pickle: bool) -> list[str]:
    """The tensors of components that the layout has no room for, such as a safety checker; of one whose files are not
    read, its name alone."""
    beside = set(model.components) - {part.component for part in layout.parts}
    found = []
    for component in sorted(name for name in beside if name != "scheduler" and "tokenizer" not in name):
        try:
            names = list(read_entries(model.weight_files(component), allow_pickle=allow_pickle))
        except ConfigError:  # no weights, such as a feature extractor's, or pickled ones
            folder = model.folder(component)
            names = [f.name for f in folder.iterdir() if f.suffix in (".bin", ".safetensors", ".pdparams")]
        found += [f"{component}/{name}" for name in names]
    return found


def _facts(model: ModelFolder, layout: Layout, scheduler: Mapping[str, Any]) -> dict[str, Entry]:
    """What ComfyUI and others look for among Stable Diffusion XL's names, as its weights do not tell it."""
    if layout != SDXL:
        return {}
    flag = Entry.of(np.zeros(0, np.float32))
    found = {"v_pred": flag} if scheduler.get("prediction_type") == "v_prediction" else {}
    if scheduler.get("rescale_betas_zero_snr"):
        found["ztsnr"] = flag
    if str(scheduler.get("_class_name")).startswith("EDM"):
        config = model.config("vae")
        for name, said in (("edm_mean", "latents_mean"), ("edm_std", "latents_std")):
            found[name] = Entry.of(np.array(config.get(said) or [], np.float32))
    return found


def _metadata(layout: Layout, prediction: Any) -> dict[str, str]:
    """By Stability's model specification (sai_model_spec 1.0.0)."""
    v = prediction == "v_prediction"
    architecture = "stable-diffusion-v2-768-v" if v and layout == SD2 else _ARCHITECTURES[layout.name]
    said = {"modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": architecture}
    if layout in (SD1, SD2, SDXL):
        said["modelspec.prediction_type"] = "v" if v else "epsilon"
    return said
