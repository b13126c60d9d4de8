"""Stable Diffusion's parts in ppdiffusers: loaded in full or not at all, saved under published names.

paddlenlp leaves a text encoder whose names lack a prefix at random values and only warns.  So networks are built from
their configuration here, and filled by core's strict reader; Paddle's layout of Linear weights is turned on the way.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle.distributed import fleet
from paddle.nn.initializer import Constant, set_global_initializer

from dreamcore.bpe import with_old_files
from dreamcore.errors import ConfigError, RunError
from dreamcore.layouts import PUBLISHED
from dreamcore.modelfields import building
from dreamcore.modelfolder import ModelFolder
from dreamcore.weights import (
    TABLE,
    Arrays,
    component_file,
    is_linear,
    known_names,
    misfit,
    read_weights,
    swap_layout,
    write_safetensors,
)

Named = Mapping[str, paddle.Tensor]
"""Trained weights by COMPONENT.PARAMETER as published."""
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


def load_component(model: ModelFolder, name: str) -> Any:
    """A network of the model in float32, in evaluation mode, every weight accounted for.

    Raises:
        ConfigError: a class that is not known, weights missing from the file, or weights that the network lacks.
    """
    library, class_name = model.index[name]
    cls = getattr(imported(LIBRARIES[library]), class_name, None) if library in LIBRARIES else None
    if cls is None:
        raise ConfigError(f"{model.path}: {name} is a {library}.{class_name}, which this ppdiffusers lacks")
    files = model.weight_files(name)
    arrays = read_weights(files, paddles=library in PUBLISHED)
    with building(model.folder(name) / "config.json", class_name):
        network = _build(cls, model.config(name))
    if problem := fill(network, arrays):
        kind, _, names = problem.partition(": ")
        raise ConfigError(f"{files[0]}: {kind} for {class_name}: {names}")
    network.eval()
    for parameter in network.parameters():
        parameter.stop_gradient = True
    return network


def imported(name: str) -> Any:
    """A module of ppdiffusers; the device is chosen by now."""
    from . import libraries  # noqa: F401  (it comes first)

    return importlib.import_module(name)


def _build(cls: Any, config: dict[str, Any]) -> Any:
    """The network, all zeros: its weights are set next, and to draw random ones takes a large model half a minute."""
    from paddlenlp.transformers.model_utils import no_init_weights

    set_global_initializer(Constant(0.0), Constant(0.0))
    try:
        with no_init_weights():
            if issubclass(cls, imported("ppdiffusers").ModelMixin):
                return cls.from_config(config)
            return cls(cls.config_class.from_dict(config))
    finally:
        set_global_initializer(None)


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
    tables = {name: table for name, table in network.named_buffers() if name == TABLE}
    return trainable(network) | tables


def trainable(network: paddle.nn.Layer) -> dict[str, paddle.Tensor]:
    """Those of a network's weights that can train."""
    return {name: weight for name, weight in network.named_parameters() if not name.endswith(ZEROS)}


def fill(network: paddle.nn.Layer, arrays: Arrays) -> str | None:
    """Give a network published weights; or say what does not fit, and leave it as it was."""
    weights = weights_of(network)
    arrays = known_names(arrays, weights)
    if problem := misfit(arrays, {name: published_shape(name, w) for name, w in weights.items()}):
        return problem
    for name, weight in weights.items():
        put(name, weight, arrays[name])
    return None


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
        return getattr(imported("ppdiffusers.transformers"), class_name).from_pretrained(str(folder))


def exported(network: paddle.nn.Layer) -> Arrays:
    """A trained network's weights, as files hold them."""
    return {name: published(name, weight) for name, weight in weights_of(network).items()}


def restore_component(network: paddle.nn.Layer, folder: Path) -> None:
    """Load weights that this backend or another exported into a network.

    Raises:
        RunError: names or shapes that do not fit.
    """
    file = component_file(folder)
    if problem := fill(network, read_weights([file])):
        raise RunError(f"{file}: does not fit this model: {problem}")


def rewrite_weights(files: Sequence[Path], folder: Path, *, paddles: bool) -> None:
    """Write a component's weights, a variant's or Paddle's own, as one plain safetensors file.

    Pickled weights of PyTorch, which are not opened here, are carried over as they are.
    """
    if files[0].suffix == ".bin":
        for file in files:
            shutil.copyfile(file, folder / file.name)
        return
    write_safetensors(component_file(folder), read_weights(files, paddles=paddles))
