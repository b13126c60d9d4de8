"""Stable Diffusion's parts in diffusers and transformers: loaded in full or not at all, saved under published names.

transformers 5 drops the `text_model.` prefix that CLIP's published weights have, and other readers then leave the
whole text encoder at random values.  Here every name is checked on the way in, and published on the way out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.utils.checkpoint
import transformers
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file

from dreamcore.backends import loading
from dreamcore.backends.loading import fitting, network_class
from dreamcore.config.common import Quantization
from dreamcore.formats.tensors import Entry
from dreamcore.formats.weights import Arrays, WeightSource, component_file, open_weights
from dreamcore.models.fields import building
from dreamcore.models.folder import ModelFolder

from .quantization import QuantizedLayer, quantize

Named = Mapping[str, torch.nn.Parameter]
"""Weights by published name."""
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


class Component(loading.Component):
    """A network whose weights come from its files, in the type that they are used in, and go again.

    Until they come, each of its tensors is one number that is as large as it likes: it has the shape, the type and the
    device that the weight will have, and layers of LoRA may be put beside it.

    Args:
        source: its weights in their files, by published name.
        tensors: its parameters and buffers, by published name.
        dtype: in which its weights come.
    """

    network: torch.nn.Module

    def __init__(
        self,
        network: torch.nn.Module,
        source: Source,
        tensors: Mapping[str, torch.Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ):
        super().__init__(network, dtype)
        self._source, self._tensors, self._device = source, tensors, device
        self.memory_format = torch.contiguous_format
        """Of weights of four dimensions."""
        self.hosted: Collection[str] = ()
        """Published names of the weights that come into the host's memory."""
        self.elsewhere: Collection[str] = ()
        """Published names of the weights that do not come: another rank keeps them."""
        self._quantised: dict[str, QuantizedLayer] = {}
        self.empty()

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What its files hold, by published name."""
        return self._tensors

    def hold(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.empty()

    @torch.no_grad()
    def fill(self) -> int:
        size = 0
        for name, value in self._source.read():
            if name in self.elsewhere:
                continue
            tensor, old = self._tensors[name], value()
            if name in self._quantised:
                size += self._quantised[name].hold(old)
                continue
            dtype = self._type_of(tensor)
            place = "cpu" if name in self.hosted else self._device
            there = torch.empty(old.shape, dtype=dtype, device=place, memory_format=self.format_of(old))
            tensor.data = there.copy_(old)
            size += there.nbytes
        return size

    def empty(self) -> None:
        for tensor in self._tensors.values():
            tensor.data = torch.zeros((), dtype=self._type_of(tensor), device=self._device).expand(tensor.shape)
        for layer in self._quantised.values():
            layer.let_go()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def quantize(self, method: Quantization) -> None:
        self._quantised = quantize(self.network, lambda name: weight_prefix(self.network) + name, method)

    def _type_of(self, tensor: torch.Tensor) -> torch.dtype:
        return self.dtype if tensor.is_floating_point() else tensor.dtype

    def format_of(self, value: torch.Tensor) -> torch.memory_format:
        """The layout that a weight of this shape has here."""
        return self.memory_format if value.ndim == 4 else torch.contiguous_format


class Source:
    """A component's weights where they lie.

    Args:
        files: safetensors, which stay mapped, or pickled ones, which are opened each time.

    Raises:
        ConfigError: a file cannot be read, or weights are missing, left over or of another shape.
    """

    def __init__(self, files: Sequence[Path], shapes: Mapping[str, Sequence[int]], class_name: str):
        self._files, self._shapes, self._class_name = files, shapes, class_name
        self._mapped: WeightSource | None = None
        if files[0].suffix == ".safetensors":
            found = open_weights(files)
            self._mapped = found.named(fitting(found.entries, shapes, files[0], class_name))
        else:
            self._pickled()

    def read(self) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
        """One weight after the other, in the file's type."""
        if self._mapped is None:
            for name, tensor in self._pickled().items():
                yield name, partial(_itself, tensor)
            return
        for name, entry in self._mapped.read():
            yield name, partial(_tensor, entry)

    def _pickled(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for file in self._files:
            with building(file, self._class_name):
                found |= _open_pickled(file)
        return fitting(found, self._shapes, self._files[0], self._class_name)


def _open_pickled(file: Path) -> dict[str, torch.Tensor]:
    try:
        found: dict[str, torch.Tensor] = torch.load(file, "cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of before 2020 cannot be mapped
        found = torch.load(file, "cpu", weights_only=True)
    return found


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _tensor(entry: Entry) -> torch.Tensor:
    """A view of the mapped file; PyTorch has no unaligned ones."""
    array = entry.read()
    array = array if array.flags.aligned else array.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot be written to
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if entry.dtype == "BF16" else tensor


def load_component(model: ModelFolder, name: str, device: torch.device, dtype: torch.dtype) -> Component:
    """A network of the model, in evaluation mode, every weight accounted for and none there yet.

    Raises:
        ConfigError: a class that is not known, weights missing from the file, or weights that the network lacks.
    """
    library, class_name = model.index[name]
    cls = network_class(model, name, LIBRARIES.get(library))
    files = model.weight_files(name)
    with building(model.folder(name) / "config.json", class_name), init_empty_weights(include_buffers=False):
        network = _build(cls, model.config(name) | model.built_with(name))
    if isinstance(network, transformers.PreTrainedModel):
        network.tie_weights()  # which being without memory has undone
    network.eval().requires_grad_(False)
    tensors = _of_memory(network)
    shapes = {published: tuple(tensor.shape) for published, tensor in tensors.items()}
    component = Component(network, Source(files, shapes, class_name), tensors, device, dtype)
    cast = isinstance(network, diffusers.ModelMixin)  # as each library does when it loads in a type
    for buffer in network.buffers():
        if not any(buffer is tensor for tensor in tensors.values()):  # computed, and in no file
            buffer.data = buffer.data.to(device, dtype if cast and buffer.is_floating_point() else None)
    return component


def _build(cls: Any, config: dict[str, Any]) -> torch.nn.Module:
    plain = issubclass(cls, diffusers.ModelMixin)
    network: torch.nn.Module = cls.from_config(config) if plain else cls(cls.config_class.from_dict(config))
    for layer in list(network.modules()):
        if hasattr(layer, "moe_infer"):
            _let_gradients_through(layer)
    return network


def _let_gradients_through(experts: Any) -> None:
    """Keep HiDream's experts on the way that diffusers takes in training: on its other one, of the same numbers, no
    gradient goes through them."""

    def train(mode: bool = True) -> Any:
        for layer in experts.children():
            layer.train(mode)
        return experts

    experts.training, experts._force_inference_output, experts.train = True, False, train


def _of_memory(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A network's weights by published name, one that has two names once; out of PyTorch's device without memory, from
    which a tensor cannot be given any."""
    named, tensors, known = weights_of(network), dict[str, torch.Tensor](), dict[int, torch.Tensor]()
    for layer in network.modules():
        for name, parameter in layer._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in known:
                    plain = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                    known[id(parameter)] = torch.nn.Parameter(plain, requires_grad=False)
                layer._parameters[name] = known[id(parameter)]
    for name, tensor in named.items():
        now = known.get(id(tensor), tensor)
        if not any(now is other for other in tensors.values()):
            tensors[name] = now
    return tensors


def load_tokenizer(model: ModelFolder, name: str) -> Any:
    """The tokenizer that the model's index names, of a processor of images and words the part for words."""
    with building(model.folder(name), class_name := model.class_name(name)):
        class_name = "AutoTokenizer" if class_name.endswith("Processor") else class_name
        return getattr(transformers, class_name).from_pretrained(model.folder(name), local_files_only=True)


def weight_prefix(network: torch.nn.Module) -> str:
    """What published names have before the names of this network's parameters."""
    flattened = isinstance(network, transformers.CLIPTextModel) and not hasattr(network, "text_model")
    return "text_model." if flattened else ""


def weights_of(network: torch.nn.Module) -> Named:
    """A network's weights under published names."""
    prefix = weight_prefix(network)
    return {prefix + name: tensor for name, tensor in network.state_dict(keep_vars=True).items()}


def add_rows(network: torch.nn.Module, table: torch.Tensor, first: int, rows: Arrays | Any) -> torch.nn.Parameter:
    """Let a network answer to the tokens from `first` on with rows beside its table; returns them."""
    learned = torch.nn.Parameter(torch.from_numpy(rows.copy()).to(table.device))
    for layer in network.modules():
        if isinstance(layer, torch.nn.Embedding) and layer.weight is table:
            layer.forward = partial(_with_rows, layer.forward, len(table), learned, first)
    return learned


def _with_rows(
    known: Callable[[torch.Tensor], torch.Tensor], size: int, rows: torch.Tensor, first: int, tokens: torch.Tensor
) -> torch.Tensor:
    old, new = known(tokens.clamp(max=size - 1)), tokens - first
    learned = torch.nn.functional.embedding(new.clamp(0, len(rows) - 1), rows).to(old.dtype)
    return torch.where(((new >= 0) & (new < len(rows)))[..., None], learned, old)


@torch.no_grad()
def fill(weights: Named, arrays: Arrays) -> None:
    """Give weights what files hold."""
    for name, weight in weights.items():
        weight.copy_(torch.from_numpy(arrays[name].copy()))


def recompute(network: torch.nn.Module) -> None:
    """Compute activations again in the backward pass, which these libraries do in train mode alone.

    What is random is drawn again only where something is: reading and writing the generator's state is a few
    milliseconds of the host an update, and cannot be captured in a graph.
    """
    random = any(isinstance(layer, torch.nn.Dropout) and layer.p > 0 for layer in network.modules())
    options = {"use_reentrant": False, "preserve_rng_state": random}
    checkpoint = partial(torch.utils.checkpoint.checkpoint, **options)
    if isinstance(network, diffusers.ModelMixin):
        network.enable_gradient_checkpointing(checkpoint)
    else:  # transformers has renamed it since 5.17
        name = "activation_checkpointing_enable"
        getattr(network, name if hasattr(network, name) else "gradient_checkpointing_enable")(options)
    network.train()


def rewrite_weights(files: Sequence[Path], folder: Path) -> None:
    """Write a component's weights, of .bin files or a variant, as one plain safetensors file."""
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        tensors |= {name: tensor.clone().contiguous() for name, tensor in part.items()}
    save_file(tensors, component_file(folder), metadata={"format": "pt"})
