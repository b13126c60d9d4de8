"""LoRA in every form that a file of it has: read into one table of factors, and written from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.output import SavePrecision
from ..errors import ConfigError
from ..formats.kohya_lora import PIPELINES, kohya_arrays
from ..formats.lora import factors_for, published_arrays, read_lora, write_lora
from ..formats.lora_header import adapter_metadata
from ..formats.lora_layouts import PER_BLOCK
from ..formats.lora_names import module_and_kind
from ..formats.lora_pair import Pair, Pairs
from ..formats.lora_raw import pairs_of
from ..formats.lora_readers import layers_found
from ..formats.mindone_lora import RANK, THEIR_DOWN, THEIR_UP, lora_from_mindone, lora_to_mindone
from ..formats.mindspore_ckpt import Checkpoint, write_ckpt
from ..formats.renaming import cast
from ..formats.tensors import Entry, Tensors, as_float, write_tensors
from ..formats.torch_pickle import read_torch_pickle
from ..formats.weights import swap_layout
from ..io.names import LORA_FILE, PADDLE_LORA_FILE
from .folder import ModelFolder
from .ldm_export import unet_geometry
from .pipeline_folder import DTYPES, component_entries, published

FORMS = ("diffusers", "peft", "kohya", "paddle", "mindone")
_BEGINNINGS = ("lora_unet_", "lora_te", "lora_transformer_", "lycoris_", "base_model.model.")
_PARTS = (".lora_", ".lora.", "_lora.", "lora_linear_layer", ".hada_", ".lokr_")
"""What names of a LoRA file's tensors begin with, or hold."""
HASHES = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
_PRECISIONS = {dtype: name for name, dtype in DTYPES.items()}
_WIDTHS = {768: "StableDiffusionPipeline", 1024: "StableDiffusionPipeline", 2048: "StableDiffusionXLPipeline"}
"""Width of the words that a UNet listens to -> whose it is."""
_VERSIONS = {
    "sd_v1": "StableDiffusionPipeline", "sd_v2": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline", "flux1": "FluxPipeline",
}  # fmt: skip
"""What kohya's field of the base model begins with -> whose layers they are."""
_TRANSFORMERS = {3072: "FluxPipeline", 1536: "StableDiffusion3Pipeline", 2432: "StableDiffusion3Pipeline"}
"""Width of a transformer -> whose it is."""


@dataclass(frozen=True)
class LoraSource:
    """A LoRA file as it was read.

    Args:
        pairs: its factors by component and layer as published; by the model's names where it is known.
        header: what it says of itself, without what follows from its form.
        form: whose names it has.
        precision: the type that all of its factors have; None: several.
        left_out: what it holds besides.
    """

    file: Path
    pairs: Pairs
    header: Mapping[str, str]
    form: str
    precision: SavePrecision | None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for (component, layer), pair in self.pairs.items():
            if not (np.isfinite(pair.down).all() and np.isfinite(pair.up).all() and np.isfinite(pair.scale)):
                raise ConfigError(f"lora: {self.file}: {component}.{layer}: holds what is no number")


def is_lora(names: Mapping[str, object]) -> bool:
    """Whether tensors of these names are LoRA's, or another kind's of adapter, whoever gave them."""
    return any(name.startswith(_BEGINNINGS) or any(part in name for part in _PARTS) for name in names)


def weight_shapes(model: ModelFolder, *, allow_pickle: bool = False) -> dict[str, dict[str, tuple[int, ...]]]:
    """Component -> layer, as published -> shape of its weight: of all that LoRA can be for."""
    components = [model.family.denoiser, *(encoder.network for encoder in model.text_encoders)]
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for component in components:
        entries = component_entries(model, component, allow_pickle=allow_pickle)
        names = published(component, entries)
        found[component] = {
            names[name].removesuffix(".weight"): entry.shape
            for name, entry in entries.items()
            if name.endswith(".weight") and len(entry.shape) in (2, 4)
        }
    return found


def open_lora(file: Path, model: ModelFolder | None = None, *, allow_pickle: bool = False) -> LoraSource:
    """Read a LoRA file of anyone's.

    Args:
        model: that it is for; its layers' names and shapes then count.

    Raises:
        ConfigError: it is damaged, pickled (without `allow_pickle`), or holds something else than LoRA for the model.
    """
    shapes = weight_shapes(model, allow_pickle=allow_pickle) if model is not None else None
    if file.suffix == ".safetensors":
        tensors = Tensors(file)
        dtypes = {tensors.dtypes[n] for n in tensors if not n.endswith("alpha")}
        pairs = read_lora(file) if shapes is None else factors_for(file, shapes)
        kept = {name: text for name, text in tensors.metadata.items() if name.startswith(("ss_", "modelspec."))}
        header = {name: text for name, text in kept.items() if name not in HASHES}
        return LoraSource(file, pairs, header, _form(tensors), _one_type(dtypes))
    if is_mindspores(file):
        geometry = unet_geometry(model) if model is not None and model.family.denoiser == "unet" else None
        checkpoint = Checkpoint(file)
        notes = tuple(name for name in checkpoint if not name.endswith((THEIR_DOWN, THEIR_UP)) and name != RANK)
        pairs = pairs_of(lora_from_mindone(checkpoint, str(file), geometry), 1.0)
        there = {key: pair for key, pair in pairs.items() if pair.up.any()}  # layers share factors there, or have none
        return LoraSource(file, there or pairs, {}, "mindone", None, notes)
    pickled = read_torch_pickle(file, allow_pickle=allow_pickle)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / file.with_suffix(".safetensors").name
        write_tensors(copy, pickled.entries())
        try:
            source = open_lora(copy, model)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(copy), str(file))) from None
    return LoraSource(file, source.pairs, {}, source.form, source.precision, pickled.left_out)


def is_mindspores(file: Path) -> bool:
    """Whether a .ckpt is MindSpore's: protocol buffers, where PyTorch's are zip archives or pickles."""
    with file.open("rb") as opened:
        return file.suffix == ".ckpt" and opened.read(1) == b"\n"


def holds_mindone_lora(file: Path) -> bool:
    """Whether MindSpore's checkpoint is one of LoRA alone."""
    return any(name.endswith(THEIR_DOWN) for name in Checkpoint(file))


def write_form(
    form: str,
    pairs: Pairs,
    target: Path,
    *,
    precision: SavePrecision | None,
    wanted: SavePrecision | None,
    header: Mapping[str, str],
    model: ModelFolder | None,
    what: str,
) -> SavePrecision | None:
    """Write a LoRA file.

    Args:
        target: the file.
        precision: of its numbers; None: `wanted` where that changes none of them, else fp32.
        header: what it says of itself besides.
        model: that it is for, where it is known.
        what: where the factors come from, for messages.

    Returns:
        the precision; None of a form that has its own.

    Raises:
        ConfigError: the form has no place for these layers, or what model they are for is not known and has to be.
    """
    if form in ("mindone", "paddle") and (place := _with_magnitude(pairs)) is not None:
        raise ConfigError(
            f"{what}: {place}: DoRA, which the form of {form} has no place for; merge it into its model instead "
            "(dreambooth convert merge)"
        )
    if form == "mindone":
        geometry = unet_geometry(model) if model is not None and model.family.denoiser == "unet" else None
        write_ckpt(target, lora_to_mindone(_as_linear(pairs), what, geometry))
        return None
    arrays = _arrays(form, pairs, header, model, what)
    chosen = precision or (wanted if wanted is not None and _unchanged(arrays, wanted) else "fp32")
    if form == "paddle":
        swapped = {name: np.ascontiguousarray(swap_layout(name, value)) for name, value in arrays.items()}
        entries = {name: cast(Entry.of(value), DTYPES[chosen]) for name, value in swapped.items()}
        write_tensors(target, entries, {**header, "format": "pd"})
        return chosen
    ranks, dora = {key: pair.rank for key, pair in pairs.items()}, _with_magnitude(pairs) is not None
    known = adapter_metadata(ranks, 1.0, dora=dora) if form != "kohya" else {}
    write_lora(target, arrays, chosen, {**header, **known})
    return chosen


def _with_magnitude(pairs: Pairs) -> str | None:
    """A layer of DoRA."""
    return next((".".join(place) for place, pair in pairs.items() if pair.magnitude is not None), None)


def readers(file: Path, model: ModelFolder, *, allow_pickle: bool = False) -> str:
    """How many of a LoRA file's layers each program finds, in words."""
    layers = {component: list(shapes) for component, shapes in weight_shapes(model, allow_pickle=allow_pickle).items()}
    found = layers_found(Tensors(file), model.index["_class_name"], layers)
    return "layers found: " + ", ".join(f"{name} {there} of {whole}" for name, (there, whole) in found.items())


def file_name(form: str) -> str:
    """What the file is called in a folder of its own."""
    return PADDLE_LORA_FILE if form == "paddle" else LORA_FILE


def _arrays(
    form: str, pairs: Pairs, header: Mapping[str, str], model: ModelFolder | None, what: str
) -> dict[str, NDArray[Any]]:
    if form == "kohya":
        pipeline = model.index["_class_name"] if model is not None else _pipeline(pairs, header, what)
        if pipeline not in PIPELINES:
            raise ConfigError(f"to: kohya has no names for the layers of a {pipeline}")
        unet = model.config("unet") if model is not None and model.family.denoiser == "unet" else {}
        return kohya_arrays(pairs, pipeline, int(unet.get("layers_per_block") or PER_BLOCK))
    widened = {place: _widened(pair) for place, pair in pairs.items()}
    return published_arrays(widened) if form != "peft" else published_arrays(widened, str)


def _pipeline(pairs: Pairs, header: Mapping[str, str], what: str) -> str:
    """The class whose layers these are: as the header says, or by their widths."""
    said = header.get("ss_base_model_version", "")
    if (found := next((name for beginning, name in _VERSIONS.items() if said.startswith(beginning)), None)) is not None:
        return found
    for (component, layer), pair in pairs.items():
        width = pair.down.shape[1]
        if component == "transformer" and layer.endswith("attn.to_q") and width in _TRANSFORMERS:
            return _TRANSFORMERS[width]
        if component == "unet" and layer.endswith(("attn2.to_k", "attn2.to_v")) and width in _WIDTHS:
            return _WIDTHS[width]
    raise ConfigError(
        f"{what}: its layers do not tell what model they are for, on which kohya's names depend; give "
        "pretrained_model_name_or_path, or another form with to"
    )


def _form(names: Mapping[str, object]) -> str:
    """Whose names a file has."""
    if any(name.startswith(("lora_unet_", "lora_te")) for name in names):
        return "kohya"
    peft = all(".lora_A" in name or ".lora_B" in name for name in names if (module_and_kind(name) or ("", ""))[1])
    return "peft" if peft and not any(name.startswith("transformer.") for name in names) else "diffusers"


def _one_type(dtypes: set[str]) -> SavePrecision | None:
    found = {_PRECISIONS.get(dtype) for dtype in dtypes}
    return found.pop() if len(found) == 1 else None  # type: ignore[return-value]


def _widened(pair: Pair) -> Pair:
    """Factors in float32, which holds what narrower types hold."""
    lengths = None if pair.magnitude is None else pair.magnitude.astype(np.float32)
    return Pair(pair.down.astype(np.float32), pair.up.astype(np.float32), pair.scale, lengths)


def _as_linear(pairs: Pairs) -> Pairs:
    """Factors of convolutions of size 1 as those of Linear layers, as MindONE's are."""
    return {
        key: Pair(pair.down.reshape(pair.down.shape[:2]), pair.up.reshape(pair.up.shape[:2]), pair.scale)
        if pair.down.ndim == 4 and pair.down.shape[2:] == (1, 1)
        else pair
        for key, pair in pairs.items()
    }


def _unchanged(arrays: Mapping[str, NDArray[Any]], precision: SavePrecision) -> bool:
    """Whether numbers are the same in a narrower type."""
    entries = (Entry.of(np.asarray(value)) for value in arrays.values())
    return all(np.array_equal(as_float(cast(e, DTYPES[precision])).astype(np.float32), e.read()) for e in entries)
