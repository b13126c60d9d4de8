"""Stable Diffusion's parts in diffusers and transformers: loaded in full or not at all, saved under published names.

transformers 5 drops the `text_model.` prefix that CLIP's published weights have, and other readers then leave the
whole text encoder at random values.  Here every name is checked on the way in, and published on the way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

from dreamcore.errors import ConfigError, RunError
from dreamcore.modelfields import building
from dreamcore.modelfolder import ModelFolder
from dreamcore.weights import Arrays, component_file

IGNORED = ("position_ids",)
"""Endings of names in published files that hold no weight: position numbers, which old versions stored."""
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_component(model: ModelFolder, name: str) -> Any:
    """A network of the model in float32, in evaluation mode, every weight accounted for.

    Raises:
        ConfigError: a class that is not known, weights missing from the file, or weights that the network lacks.
    """
    library, class_name = model.index[name]
    cls = getattr(LIBRARIES.get(library), class_name, None)
    if cls is None:
        raise ConfigError(f"{model.path}: {name} is a {library}.{class_name}, which this torch environment lacks")
    files = model.weight_files(name)
    with building(files[0], class_name):
        network, info = cls.from_pretrained(
            model.folder(name),
            variant=model.variant_of(name),
            use_safetensors=files[0].suffix == ".safetensors",
            torch_dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
        )
    _refuse_gaps(files[0], class_name, info)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()  # out of the mapped file, whose alignment would show in the last bits
    return network.eval().requires_grad_(False)


def _refuse_gaps(file: Path, class_name: str, info: Mapping[str, Any]) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(n) for n in info.get(kind, ()) if not str(n).endswith(IGNORED))
        if names:
            some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise ConfigError(f"{file}: {kind.replace('_', ' ')} for {class_name}: {some}")


def load_tokenizer(model: ModelFolder, name: str) -> Any:
    """The tokenizer that the model's index names."""
    with building(model.folder(name), class_name := model.class_name(name)):
        return getattr(transformers, class_name).from_pretrained(model.folder(name), local_files_only=True)


def weight_prefix(network: torch.nn.Module) -> str:
    """What published names have before the names of this network's parameters."""
    flattened = isinstance(network, transformers.CLIPTextModel) and not hasattr(network, "text_model")
    return "text_model." if flattened else ""


def exported(network: torch.nn.Module) -> Arrays:
    """A trained network's weights under published names."""
    prefix = weight_prefix(network)
    return {prefix + name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}


def restore_component(network: torch.nn.Module, folder: Path) -> None:
    """Load weights that this backend or another exported into a network.

    Raises:
        RunError: names or shapes that do not fit.
    """
    file = component_file(folder)
    prefix = weight_prefix(network)
    tensors = {name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise RunError(f"{file}: does not fit this model: {error}") from None


def rewrite_weights(files: Sequence[Path], folder: Path) -> None:
    """Write a component's weights, of .bin files or a variant, as one plain safetensors file."""
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        tensors |= {name: tensor.clone().contiguous() for name, tensor in part.items()}
    save_file(tensors, component_file(folder), metadata={"format": "pt"})
