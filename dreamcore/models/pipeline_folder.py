"""A model's folder written anew in diffusers' layout: weights in safetensors, of another type, or changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from ..formats.ppdiffusers import PUBLISHED, published_index
from ..formats.renaming import cast, read_entries
from ..formats.tensors import Entry, write_tensors
from ..formats.weight_files import choose_weights
from ..formats.weights import PREFIX, component_file
from ..io.names import INDEX
from .folder import ModelFolder

WEIGHTS = (".safetensors", ".bin", ".pdparams", ".msgpack", ".onnx", ".index.json", ".h5", ".ckpt", ".pt")
"""Endings of files of weights, and of the lists of their shards."""
DTYPES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
"""Settings' names of types -> safetensors'."""
Change = Callable[[str, dict[str, Entry]], dict[str, Entry]]
"""Component and its tensors -> those of them that are to be others."""


def component_entries(model: ModelFolder, component: str, *, allow_pickle: bool = False) -> dict[str, Entry]:
    """A component's tensors in PyTorch's layout, under the names that its files have; none is read yet.

    Raises:
        ConfigError: damaged files, or pickled ones without `allow_pickle`.
    """
    paddles = is_paddles(model, component)
    return read_entries(model.weight_files(component), paddles=paddles, allow_pickle=allow_pickle)


def is_paddles(model: ModelFolder, component: str) -> bool:
    """Whether a component is of ppdiffusers' layout."""
    return model.index[component][0] in PUBLISHED


def is_plain(model: ModelFolder) -> bool:
    """Whether a folder is in diffusers' layout as it stands: safetensors, no variant."""
    networks = [name for name in model.components if _weights(model, name)]
    return not model.variant and not any(_rewritten(model, name, _weights(model, name)) for name in networks)


def published(component: str, entries: Mapping[str, Entry]) -> dict[str, str]:
    """A component's names of tensors -> as they are published; transformers 5 leaves CLIP's prefix out."""
    bare = component.startswith("text_encoder") and "embeddings.token_embedding.weight" in entries
    return {name: f"{PREFIX}{name}" if bare and not name.startswith("text_projection") else name for name in entries}


def write_pipeline(
    model: ModelFolder,
    folder: Path,
    *,
    precision: str | None = None,
    change: Change = lambda component, entries: {},
    allow_pickle: bool = False,
) -> list[str]:
    """Fill an empty folder with a model in diffusers' layout, tensor by tensor.

    What stays as it is is copied byte for byte.

    Args:
        precision: "fp16", "bf16" or "fp32" for all weights; None keeps each as it is.

    Returns:
        the files, COMPONENT/NAME, that have no place in it: weights in other forms and of other variants.

    Raises:
        ConfigError: as `component_entries`, before anything is written.
    """
    networks = {name: _weights(model, name) for name in model.components}
    tensors = {n: component_entries(model, n, allow_pickle=allow_pickle) for n, files in networks.items() if files}
    changed = {name: change(name, entries) for name, entries in tensors.items()}
    left_out: list[str] = []
    for name, files in networks.items():
        (folder / name).mkdir()
        keep = bool(files) and not changed[name] and precision is None and not _rewritten(model, name, files)
        for file in sorted(model.folder(name).iterdir()):
            shards = len(files) > 1 and file.name.endswith(".index.json")
            if file.is_file() and (not file.name.endswith(WEIGHTS) or (keep and (file.name in files or shards))):
                shutil.copyfile(file, folder / name / file.name)
            elif file.is_dir() or (file.name not in files and not file.name.endswith(".index.json")):
                left_out.append(f"{name}/{file.name}")
        if files and not keep:
            entries = tensors[name] | changed[name]
            if precision is not None:
                entries = {n: cast(entry, DTYPES[precision]) for n, entry in entries.items()}
            write_tensors(component_file(folder / name), entries)
    index = published_index(model.index)
    if index == model.index:
        shutil.copyfile(model.path / INDEX, folder / INDEX)
    else:
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return left_out


def _weights(model: ModelFolder, component: str) -> list[str]:
    """The names of the files that a component's weights are read from; none of a tokenizer."""
    names = [file.name for file in model.folder(component).iterdir()]
    return choose_weights(names, model.variant) or choose_weights(names, None)


def _rewritten(model: ModelFolder, component: str, files: list[str]) -> bool:
    """Whether a component's weights cannot be copied as they are."""
    of_variant = files != choose_weights(files, None)
    return of_variant or not files[0].endswith(".safetensors") or is_paddles(model, component)
