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

from dreamcore.backends.loading import network_class, refuse_problems
from dreamcore.formats.weights import IGNORED, Arrays, component_file
from dreamcore.models.fields import building
from dreamcore.models.folder import ModelFolder

Named = Mapping[str, torch.nn.Parameter]
"""Weights by published name."""
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_component(model: ModelFolder, name: str) -> Any:
    """A network of the model in float32, in evaluation mode, every weight accounted for.

    Raises:
        ConfigError: a class that is not known, weights missing from the file, or weights that the network lacks.
    """
    library, class_name = model.index[name]
    cls = network_class(model, name, LIBRARIES.get(library))
    files = model.weight_files(name)
    with building(files[0], class_name):
        network, info = cls.from_pretrained(
            model.folder(name),
            variant=model.variant_of(name),
            use_safetensors=files[0].suffix == ".safetensors",
            torch_dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            **model.without_dropout(name),
        )
    reported = {
        kind: [str(n) for n in info.get(f"{kind}_keys", ())] for kind in ("missing", "unexpected", "mismatched")
    }
    problems = {f"{kind} keys": [n for n in names if not n.endswith(IGNORED)] for kind, names in reported.items()}
    refuse_problems(problems, files[0], class_name)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()  # out of the mapped file, whose alignment would show in the last bits
    return network.eval().requires_grad_(False)


def load_tokenizer(model: ModelFolder, name: str) -> Any:
    """The tokenizer that the model's index names."""
    with building(model.folder(name), class_name := model.class_name(name)):
        return getattr(transformers, class_name).from_pretrained(model.folder(name), local_files_only=True)


def weight_prefix(network: torch.nn.Module) -> str:
    """What published names have before the names of this network's parameters."""
    flattened = isinstance(network, transformers.CLIPTextModel) and not hasattr(network, "text_model")
    return "text_model." if flattened else ""


def weights_of(network: torch.nn.Module) -> Named:
    """A network's weights under published names."""
    prefix = weight_prefix(network)
    return {prefix + name: tensor for name, tensor in network.state_dict(keep_vars=True).items()}


@torch.no_grad()
def fill(weights: Named, arrays: Arrays) -> None:
    """Give weights what files hold."""
    for name, weight in weights.items():
        weight.copy_(torch.from_numpy(arrays[name].copy()))


def recompute(network: torch.nn.Module) -> None:
    """Compute activations again in the backward pass, which these libraries do in train mode alone."""
    diffusers_name, transformers_name = "enable_gradient_checkpointing", "activation_checkpointing_enable"
    getattr(network, diffusers_name if hasattr(network, diffusers_name) else transformers_name)()
    network.train()


def rewrite_weights(files: Sequence[Path], folder: Path) -> None:
    """Write a component's weights, of .bin files or a variant, as one plain safetensors file."""
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        tensors |= {name: tensor.clone().contiguous() for name, tensor in part.items()}
    save_file(tensors, component_file(folder), metadata={"format": "pt"})
