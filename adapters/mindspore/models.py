"""A model's parts in mindone: loaded in full or not at all, saved under published names.

mindone leaves a text encoder whose names it does not recognise at random values, and writes CLIP under names that no
other library reads (`.gamma`, `.embedding_table`).  So weights are read and written here, by their published names.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.nn.utils import no_init_parameters
from numpy.typing import NDArray

from dreamcore.backends import loading
from dreamcore.backends.loading import fitting, network_class
from dreamcore.formats.tensors import as_float
from dreamcore.formats.weights import Arrays, WeightSource, open_weights
from dreamcore.models.fields import building
from dreamcore.models.folder import ModelFolder
from dreamcore.text.tokenizer import with_old_files

from ..imports import import_lazily
from . import cpu_shim, rotary

Weights = dict[str, ms.Parameter]
"""A network's parameters by published name."""

PUBLISHED = {".embedding_table": ".weight", ".gamma": ".weight", ".beta": ".bias"}
"""Endings of MindSpore's parameter names, and what the published files call them."""


class Component(loading.Component):
    """A network and its parameters by published name, which have no values until its weights come.

    Args:
        source: its weights in their files.
        weights: its parameters.
    """

    def __init__(self, network: Any, source: WeightSource, weights: Weights):
        super().__init__(network, ms.float32)
        self.weights, self._source, self.shapes = weights, source, shapes(weights)

    def hold(self, dtype: Any) -> None:
        """Nothing: weights are held in float32, and cast where they are used (`ms.amp.auto_mixed_precision`)."""

    def fill(self) -> int:
        for name, entry in self._source.read():
            value = ms.Tensor(np.ascontiguousarray(as_float(entry), np.float32))
            self.weights[name].set_data(value, slice_shape=True)  # whatever stood for them
        return sum(4 * math.prod(shape) for shape in self.shapes.values())

    def empty(self) -> None:
        """One number stands for each weight: MindSpore frees what a parameter held when it is given something else."""
        for parameter in self.weights.values():
            parameter.set_data(ms.Tensor(np.zeros(1, np.float32)), slice_shape=True)


def load_component(model: ModelFolder, name: str) -> Component:
    """A network of the model, to be held in float32, in evaluation mode, every weight accounted for and none there yet.

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
    source = open_weights(files)
    source = source.named(fitting(source.entries, shapes(weights), files[0], class_name))
    return Component(network.set_train(False), source, weights)


def _build(model: ModelFolder, name: str, library: str, class_name: str) -> Any:
    """The network without weights: they are set next, and to draw random ones takes a large model long."""
    cls = network_class(model, name, mindone(library) if library in ("diffusers", "transformers") else None)
    with building(model.folder(name) / "config.json", class_name), no_init_parameters():
        if library == "diffusers":
            rotary.mend(cls)
            return cls.from_config(model.config(name) | model.built_with(name))
        with _undrawn():
            network = cls(cls.config_class.from_dict(model.config(name) | model.built_with(name)))
        network.tie_weights()
        return network


@contextlib.contextmanager
def _undrawn() -> Iterator[None]:
    """Let mindone.transformers draw no weights, for which the CPU has no kernel either."""
    module: Any = importlib.import_module("mindone.transformers.modeling_utils")
    before, module._init_weights = module._init_weights, False
    try:
        yield
    finally:
        module._init_weights = before


def mindone(library: str) -> Any:
    """mindone.diffusers or mindone.transformers, without what they print about frameworks that are not there."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # All models of its two `__init__` take 4 s of 7.4 (processor time of mindone's imports, AMD EPYC) and 89 MiB of
        # 554, at every command that loads a model.
        import_lazily("mindone.transformers")
        import_lazily("mindone.transformers.models")
        shimmed = ("attention_dispatch", "activations", "attention_processor")
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


def fill(weights: Mapping[str, ms.Parameter], arrays: Arrays) -> None:
    """Give parameters what files hold."""
    for name, parameter in weights.items():
        parameter.set_data(ms.Tensor(np.ascontiguousarray(arrays[name], np.float32)))


def load_tokenizer(model: ModelFolder, name: str) -> Any:
    """The tokenizer that the model's index names; tokenizers are NumPy's and strings' business, not MindSpore's.

    CLIP's is the fast one: that of transformers 4 in Python makes words of Chinese characters, which CLIP does not.
    """
    import transformers

    class_name = model.class_name(name)
    class_name = {"CLIPTokenizer": "CLIPTokenizerFast"}.get(class_name, class_name)
    class_name = "AutoTokenizer" if class_name.endswith("Processor") else class_name  # the part for words
    with building(model.folder(name), class_name), with_old_files(model.folder(name)) as folder:
        return getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)


class WithRows(nn.Cell):
    """A table of embeddings, and rows beside it for the tokens from `first` on."""

    def __init__(self, table: nn.Cell, size: int, rows: ms.Parameter, first: int):
        super().__init__()
        self.table, self.rows = table, rows
        self._last, self._count, self._first = size - 1, rows.shape[0], first

    def construct(self, tokens: ms.Tensor) -> ms.Tensor:
        new = tokens - self._first
        old = self.table(ops.minimum(tokens, self._last))
        learned = ops.gather(self.rows, ops.clamp(new, 0, self._count - 1), 0).astype(old.dtype)
        own = ops.logical_and(new >= 0, new < self._count)
        return ops.where(own.expand_dims(-1), learned, old)


def add_rows(network: nn.Cell, table: ms.Parameter, first: int, rows: NDArray[np.float32]) -> ms.Parameter:
    """Let a network answer to the tokens from `first` on with rows beside its table; returns them."""
    learned = ms.Parameter(ms.Tensor(rows), name="new_words")
    wrapped: dict[int, nn.Cell] = {}
    for _, parent in list(network.cells_and_names()):
        for key, cell in list(parent._cells.items()):  # T5's table is that of two cells
            if cell is not None and any(parameter is table for parameter in cell._params.values()):
                setattr(parent, key, wrapped.setdefault(id(cell), WithRows(cell, table.shape[0], learned, first)))
    return learned
