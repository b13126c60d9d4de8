"""Stable Diffusion's parts in ppdiffusers: loaded in full or not at all, saved under published names.

paddlenlp leaves a text encoder whose names lack a prefix at random values and only warns.  So networks are built from
their configuration here, and filled by core's strict reader; Paddle's layout of Linear weights is turned on the way.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle.amp.auto_cast import need_keep_fp32
from paddle.distributed import fleet

from dreamcore.backends import loading
from dreamcore.backends.loading import fitting, network_class
from dreamcore.formats.ppdiffusers import PUBLISHED
from dreamcore.formats.tensors import as_float
from dreamcore.formats.weights import TABLE, Arrays, WeightSource, is_linear, open_weights, swap_layout
from dreamcore.models.fields import building
from dreamcore.models.folder import ModelFolder
from dreamcore.text.tokenizer import read_tokenizer, with_old_files

Named = Mapping[str, paddle.Tensor]
"""Weights by published name."""
LIBRARIES = {
    "diffusers": "ppdiffusers",
    "ppdiffusers": "ppdiffusers",
    "transformers": "ppdiffusers.transformers",
    "ppdiffusers.transformers": "ppdiffusers.transformers",
    "paddlenlp.transformers": "ppdiffusers.transformers",
}
"""What model_index.json calls a library, and who stands in for it."""
ZEROS = ("norm_out.norm.bias", "norm1_context.norm.bias")
"""Endings of the names of biases that ppdiffusers' SD3 has where published ones have none; they stay zero."""


class Component(loading.Component):
    """A network whose parameters have no memory until its weights come, and none when they have gone.

    Args:
        source: its weights in their files.
        dtype: float32, or amp_level O2's: then each weight comes in it, but for those that `paddle.amp.decorate` would
            leave in float32.
    """

    network: paddle.nn.Layer

    def __init__(self, network: paddle.nn.Layer, source: WeightSource, dtype: str):
        super().__init__(network, dtype)
        self._source, self._weights = source, weights_of(network)
        layers = dict(network.named_sublayers(include_self=True))
        self._layer_of = {name: layers[name.rpartition(".")[0]] for name in self._weights}

    def hold(self, dtype: str) -> None:
        self.dtype = dtype
        self.empty()

    def fill(self) -> int:
        size = 0
        for name, entry in self._source.read():
            weight, layer = self._weights[name], self._layer_of[name]
            if self.dtype == "float32" or need_keep_fp32(layer, self.dtype):
                put(name, weight, as_float(entry))
                size += 4 * math.prod(entry.shape)
                continue
            value = np.ascontiguousarray(swap_layout(name, as_float(entry)), np.float32)
            give(weight, paddle.to_tensor(value).cast(self.dtype))
            size += 2 * math.prod(entry.shape)
        return size

    def empty(self) -> None:
        for weight in self._weights.values():
            if weight._is_initialized():
                weight._clear_data()


def give(weight: paddle.Tensor, value: paddle.Tensor) -> None:
    """Let a parameter hold a tensor, of another type too: as `paddle.nn.Layer.to` does."""
    held = weight.value().get_tensor()
    held._clear()
    held._share_data_with(value.value().get_tensor())


def load_component(model: ModelFolder, name: str, dtype: str = "float32") -> Component:
    """A network of the model, in evaluation mode, every weight accounted for and none there yet.

    Raises:
        ConfigError: a class that is not known, weights missing from the file, or weights that the network lacks.
    """
    library, class_name = model.index[name]
    cls = network_class(model, name, imported(LIBRARIES[library]) if library in LIBRARIES else None)
    files = model.weight_files(name)
    source = open_weights(files, paddles=library in PUBLISHED)
    with building(model.folder(name) / "config.json", class_name):
        network = _build(cls, model.config(name) | model.built_with(name))
    source = source.named(fitting(source.entries, shapes(weights_of(network)), files[0], class_name))
    _embed_padding(network)
    network.eval()
    for own, parameter in network.named_parameters():
        parameter.stop_gradient = True
        if own.endswith(ZEROS):
            parameter.set_value(np.zeros(parameter.shape, np.float32))
    return Component(network, source, dtype)


def imported(name: str) -> Any:
    """A module of ppdiffusers; the device is chosen by now."""
    from . import libraries  # noqa: F401  (it comes first)

    return importlib.import_module(name)


def _build(cls: Any, config: dict[str, Any]) -> Any:
    """The network, whose parameters have no memory yet."""
    from paddlenlp.transformers.model_utils import no_init_weights

    with no_init_weights(), paddle.LazyGuard():
        if issubclass(cls, imported("ppdiffusers").ModelMixin):
            return cls.from_config(config)
        return cls(cls.config_class.from_dict(config))


def _embed_padding(network: paddle.nn.Layer) -> None:
    """Let tables that know their padding token answer with its row, which does not train, as PyTorch's do.

    Paddle's answer zeros, and a BERT that is given no mask would see those.
    """
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.Embedding) and layer.padding_idx not in (None, -1):
            layer.forward = partial(_rows, layer.weight, layer.padding_idx)


def _rows(table: paddle.Tensor, padding: int, tokens: paddle.Tensor) -> paddle.Tensor:
    rows = paddle.nn.functional.embedding(tokens, table)
    return paddle.where((tokens == padding).unsqueeze(-1), rows.detach(), rows)


def add_rows(network: paddle.nn.Layer, table: paddle.Tensor, first: int, rows: NDArray[np.float32]) -> paddle.Tensor:
    """Let a network answer to the tokens from `first` on with rows beside its table; returns them."""
    learned = paddle.create_parameter(rows.shape, "float32", default_initializer=paddle.nn.initializer.Assign(rows))
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.Embedding) and layer.weight is table:
            layer.forward = partial(_with_rows, layer.forward, table.shape[0], learned, first)
    return learned


def _with_rows(
    known: Callable[[paddle.Tensor], paddle.Tensor], size: int, rows: paddle.Tensor, first: int, tokens: paddle.Tensor
) -> paddle.Tensor:
    old, new = known(tokens.clip(max=size - 1)), tokens - first
    learned = paddle.nn.functional.embedding(new.clip(0, rows.shape[0] - 1), rows).cast(old.dtype)
    return paddle.where(((new >= 0) & (new < rows.shape[0])).unsqueeze(-1), learned, old)


def recompute(network: paddle.nn.Layer) -> None:
    """Compute activations again in the backward pass, while the network is in train mode.

    ppdiffusers' own switch gives a block that returns a pair, as SD3's do, to something that expects one tensor.
    """
    if hasattr(network, "sd3_origin_transformer"):
        for block in network.transformer_blocks:
            block.forward = partial(_recomputed, block, block.forward)
    elif hasattr(network, "enable_gradient_checkpointing"):
        network.enable_gradient_checkpointing()
    else:
        network._set_gradient_checkpointing(True)
    network.train()


def _recomputed(block: paddle.nn.Layer, forward: Callable[..., Any], **inputs: paddle.Tensor) -> Any:
    if not block.training:
        return forward(**inputs)
    names = list(inputs)

    def run(*values: paddle.Tensor) -> Any:
        return forward(**dict(zip(names, values, strict=True)))

    return fleet.utils.recompute(run, *inputs.values(), use_reentrant=False)


def weights_of(network: paddle.nn.Layer) -> dict[str, paddle.Tensor]:
    """A network's weights under their published names, tables of positions included: without zeros that only
    ppdiffusers has."""
    weights = {name: weight for name, weight in network.named_parameters() if not name.endswith(ZEROS)}
    return weights | {name: table for name, table in network.named_buffers() if name == TABLE}


def shapes(weights: Named) -> dict[str, tuple[int, ...]]:
    """Of weights, as files hold them."""
    return {name: published_shape(name, weight) for name, weight in weights.items()}


def arrays(weights: Named) -> Arrays:
    """Weights as files hold them."""
    return {name: published(name, weight) for name, weight in weights.items()}


def fill(weights: Named, arrays: Arrays) -> None:
    """Give weights what files hold."""
    for name, weight in weights.items():
        put(name, weight, arrays[name])


def published_shape(name: str, weight: paddle.Tensor) -> tuple[int, ...]:
    """The shape that a weight has in files."""
    shape = tuple(weight.shape)
    return shape[::-1] if is_linear(name, len(shape)) else shape


def published(name: str, weight: paddle.Tensor) -> NDArray[np.float32]:
    """A weight, or what is of its shape, as files hold it."""
    return swap_layout(name, weight.detach().numpy())


def put(name: str, weight: paddle.Tensor, array: NDArray[Any]) -> None:
    """Set a weight, or what is of its shape, from what a file holds."""
    weight.set_value(np.ascontiguousarray(swap_layout(name, array), np.float32))


def load_tokenizer(model: ModelFolder, name: str) -> Any:
    """The tokenizer that the model's index names."""
    class_name = model.class_name(name).removesuffix("Fast")  # of which there is none here
    with building(model.folder(name), class_name), with_old_files(model.folder(name)) as folder:
        return read_in_paddle(class_name, folder)


def read_in_paddle(class_name: str, folder: Path) -> Any:
    """A tokenizer of that class, which finds the tokens that core does: as transformers' own, and paddlenlp's do not.

    Its CLIP turns quotation marks, Chinese commas and wide letters into ASCII first; its BERT parts words at symbols.
    """
    tokenizer = getattr(imported("ppdiffusers.transformers"), class_name).from_pretrained(str(folder))
    if (known := read_tokenizer(class_name, folder)) is not None:
        tokenizer._tokenize = known.tokenize
    return tokenizer
