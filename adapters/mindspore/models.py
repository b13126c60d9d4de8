"""A model's parts in mindone: loaded in full or not at all, saved under published names.

mindone leaves a text encoder whose names it does not recognise at random values, and writes CLIP under names that no
other library reads (`.gamma`, `.embedding_table`).  So weights are read and written here, by their published names.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore.nn.utils import no_init_parameters

from dreamcore.bpe import with_old_files
from dreamcore.errors import ConfigError
from dreamcore.modelfields import building
from dreamcore.modelfolder import ModelFolder
from dreamcore.weights import (
    TABLE,
    Arrays,
    component_file,
    known_names,
    misfit,
    read_exactly,
    read_safetensors,
    write_safetensors,
)

from ..imports import import_lazily
from . import cpu_shim

Weights = dict[str, ms.Parameter]
"""A network's parameters by published name."""

PUBLISHED = {".embedding_table": ".weight", ".gamma": ".weight", ".beta": ".bias"}
"""Endings of MindSpore's parameter names, and what the published files call them."""


def load_component(model: ModelFolder, name: str) -> tuple[Any, Weights]:
    """A network of the model in float32, in evaluation mode, every weight accounted for; and its weights.

    Raises:
        ConfigError: a class that is not known, weights missing from the file, or weights that the network lacks.
    """
    library, class_name = model.index[name]
    files = model.weight_files(name)
    network = _build(model, name, library, class_name)
    weights = {_published(n): p for n, p in network.parameters_and_names()}
    for published, parameter in weights.items():
        parameter.name = f"{name}.{published}"  # unique over all components
        parameter.requires_grad = False
    tensors = known_names(read_weights(files), weights)
    if problem := misfit(tensors, shapes(weights)):
        raise ConfigError(f"{files[0]}: {problem} for {class_name}")
    fill(weights, tensors)
    return network.set_train(False), weights


def _build(model: ModelFolder, name: str, library: str, class_name: str) -> Any:
    """The network without weights: they are set next, and to draw random ones takes a large model long."""
    cls = getattr(mindone(library), class_name, None) if library in ("diffusers", "transformers") else None
    if cls is None:
        raise ConfigError(f"{model.path}: {name} is a {library}.{class_name}, which this mindone lacks")
    with building(model.folder(name) / "config.json", class_name), no_init_parameters():
        if library == "diffusers":
            return cls.from_config(model.config(name))
        return cls(cls.config_class.from_dict(model.config(name)))


def mindone(library: str) -> Any:
    """mindone.diffusers or mindone.transformers, without what they print about frameworks that are not there."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import_lazily("mindone.transformers")  # all models of its two `__init__` take 4 seconds of 6
        import_lazily("mindone.transformers.models")
        shimmed = ("attention_dispatch", "activations")
        cpu_shim.install_in_mindone(*(importlib.import_module(f"mindone.diffusers.models.{name}") for name in shimmed))
        return importlib.import_module(f"mindone.{library}")


def _published(name: str) -> str:
    for ending, published in PUBLISHED.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + published
    return name


def shapes(weights: Mapping[str, ms.Parameter]) -> dict[str, tuple[int, ...]]:
    """Of weights, by name."""
    return {name: weight.shape for name, weight in weights.items()}


def arrays(weights: Mapping[str, ms.Parameter]) -> Arrays:
    """Weights as files hold them."""
    return {name: weight.asnumpy() for name, weight in weights.items()}


def trainable(weights: Weights, unused: tuple[str, ...]) -> Weights:
    """Those of a network's weights that can train.

    Args:
        unused: beginnings of the published names of weights that nothing depends on.
    """
    return {name: weight for name, weight in weights.items() if name != TABLE and not name.startswith(unused)}


def fill(weights: Mapping[str, ms.Parameter], tensors: Arrays) -> None:
    """Give parameters what files hold."""
    for name, parameter in weights.items():
        parameter.set_data(ms.Tensor(np.ascontiguousarray(tensors[name], np.float32)))


def read_weights(files: Sequence[Path]) -> Arrays:
    """All tensors of safetensors files; bfloat16, which NumPy lacks, as float32.

    Raises:
        ConfigError: a damaged file, or one of another kind.
    """
    tensors: Arrays = {}
    for file in files:
        if file.suffix != ".safetensors":
            raise ConfigError(f"{file}: the MindSpore backend reads safetensors only; convert the model with diffusers")
        tensors |= read_safetensors(file)
    return tensors


def load_tokenizer(model: ModelFolder, name: str) -> Any:
    """The tokenizer that the model's index names; tokenizers are NumPy's and strings' business, not MindSpore's."""
    import transformers

    class_name = model.class_name(name)
    with building(model.folder(name), class_name), with_old_files(model.folder(name)) as folder:
        return getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)


def restore_component(weights: Mapping[str, ms.Parameter], folder: Path) -> None:
    """Load weights that this backend or another exported.

    Raises:
        RunError: names or shapes that do not fit.
    """
    fill(weights, read_exactly(component_file(folder), shapes(weights), "this model"))


def rewrite_weights(files: Sequence[Path], folder: Path) -> None:
    """Write a component's weights, a variant's for example, as one plain safetensors file of their own precision.

    Pickled weights, which are not opened here, are carried over as they are.
    """
    if files[0].suffix == ".bin":
        for file in files:
            shutil.copyfile(file, folder / file.name)
        return
    write_safetensors(component_file(folder), read_weights(files))
