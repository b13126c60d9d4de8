"""The MindSpore backend: mindone's networks under core's plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcore.backends.base import BaseBackend
from dreamcore.backends.lora import layer_shapes
from dreamcore.backends.loss_scale import LossScale
from dreamcore.backends.protocol import Batch, Float, SampleRequest
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings, Precision
from dreamcore.errors import ConfigError
from dreamcore.families import Family
from dreamcore.formats.lora import factors_for
from dreamcore.models.folder import ModelFolder
from dreamcore.models.settings import family_inputs
from dreamcore.text import conditions
from dreamcore.text.encoder import LoadedEncoder, Tokens

from .devices import choose_device  # isort: skip  # before MindSpore: it settles how MindSpore starts

import mindspore as ms
from mindspore import Tensor, ops

from . import lora, models
from .buckets import flatten_all
from .ema import EMA
from .launch import join_world, sum_over_ranks
from .memory import out_of_memory
from .network import ConditioningNetwork, LossNetwork, Reader, encode, gradient_function, recompute
from .optim import Optimizer
from .precision import check_precision

__all__ = ["MindSporeBackend", "load", "out_of_memory"]

Conditioning = conditions.Conditioning[Tensor]


def load(model: ModelFolder, settings: ModelSettings) -> MindSporeBackend:
    """The entry point `dreambooth.backends`."""
    return MindSporeBackend(model, settings)


class MindSporeBackend(BaseBackend[Tensor]):
    """`dreamcore.backends.protocol.Backend` on MindSpore."""

    optimizer: Optimizer
    load_tokenizer = staticmethod(models.load_tokenizer)
    arrays = staticmethod(models.arrays)
    fill = staticmethod(models.fill)
    add_lora = staticmethod(lora.add_lora)
    switch_lora = staticmethod(lora.switch)
    recompute = staticmethod(recompute)
    set_seed = staticmethod(ms.set_seed)
    inference = nullcontext  # gradients are kept where `value_and_grad` asks for them, and nowhere else

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.device, self.graph = choose_device(settings)
        self._check_mode(model.family, settings)
        self.dtype = check_precision(settings.mixed_precision, self.device)
        self._compile = partial(ms.jit, jit_level=settings.jit_level) if self.graph else None
        self.world = join_world()
        self._weights: dict[str, models.Weights] = {}
        self._sums: list[Tensor] = []
        super().__init__(model, settings)

    def _check_mode(self, family: Family, settings: ModelSettings) -> None:
        """Refuse what cannot be computed in this mode, before anything is loaded."""
        unsaid = settings.mode is None and settings.device is None  # otherwise the table of uses has judged it
        if unsaid and not self.graph and settings.jit_level != "O1" and "jit_level" not in settings.suggested:
            raise ConfigError(f"jit_level={settings.jit_level!r}: acts only in graph mode; remove it")
        if self.graph and self.device == "CPU" and family.denoiser != "unet":
            raise ConfigError(
                f"mode: graph needs an Ascend device for {family.name} (MindSpore's CPU compiler lacks "
                "operators); use pynative"
            )
        if not isinstance(settings, TrainConfig) or not settings.use_lora:
            return
        if self.graph and (settings.lora_method != "lora" or settings.use_dora):
            other = "use_dora" if settings.lora_method == "lora" else f"lora_method: {settings.lora_method}"
            raise ConfigError(f"{other}: not tried in graph mode, which compiles the step; use --mode pynative")
        if settings.lora_method not in ("lora", "pissa") or not settings.lora_dropout:
            return
        if self.graph:
            raise ConfigError(
                f"lora_dropout: {settings.lora_dropout} in graph mode, where MindSpore's dropout hears no seed and a "
                "run would not go on as it began; use --mode pynative, or leave lora_dropout out"
            )
        if settings.gradient_checkpointing:
            raise ConfigError(
                "gradient_checkpointing: MindSpore would drop other values the second time; leave out lora_dropout"
            )

    # Arrays and tensors

    def to_device(self, array: NDArray[Any]) -> Tensor:
        return Tensor(np.ascontiguousarray(array))

    def to_host(self, tensor: Tensor) -> Float:
        return tensor.asnumpy().astype(np.float32)

    def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        return tensors[0] if len(tensors) == 1 else ops.cat(list(tensors), axis)

    def rows(self, tensor: Tensor, rows: NDArray[np.int64]) -> Tensor:
        return ops.gather(tensor, self.to_device(rows), 0)

    # Networks

    def load_component(self, model: ModelFolder, name: str, dtype: Any) -> models.Component:
        component = models.load_component(model, name)
        self._weights[name] = component.weights
        fits_fp16 = {encoder.network: encoder.fits_fp16 for encoder in model.text_encoders}.get(name, True)
        in_float32 = name == model.family.vae or (self.dtype is ms.float16 and not fits_fp16)
        if self.dtype is not ms.float32 and not in_float32:
            ms.amp.auto_mixed_precision(component.network, "auto", self.dtype)
        return component

    def type_of(self, precision: Precision) -> Any:
        """Float32 whatever the precision: MindSpore casts weights where they are used."""
        return ms.float32

    def weights(self, component: str) -> models.Weights:
        return self._weights[component]

    def move(self, network: Any, *, away: bool = False) -> None:
        """Nothing: MindSpore has no way to take a network off its device for a while."""

    def set_mode(self, network: Any, *, train: bool) -> None:
        network.set_train(train)

    def encode_pixels(self, pixels: Float) -> tuple[Float, Float]:
        moments = self.as_picture(self.to_host(self.vae.encode(self.to_device(self.as_film(pixels)))[0]))
        if not self.autoencoder_class.distribution:
            return moments, np.zeros_like(moments)
        mean, log_variance = np.split(moments, 2, axis=1)
        return mean, np.exp(0.5 * np.clip(log_variance, -30, 20))

    def decode_latents(self, latents: Float) -> Float:
        return self.as_picture(self.to_host(self.vae.decode(self.to_device(self.as_film(latents)))[0]))

    def encode_tokens(self, part: LoadedEncoder[Tensor], ids: Tensor, masks: Tensor) -> Conditioning:
        if part.description.kind.generates:
            return super().encode_tokens(part, ids, masks)
        return conditions.Conditioning(*encode(part.network, Reader.of(part), ids, masks))

    def encode_prompt(self, part: LoadedEncoder[Tensor], tokens: Tokens, precision: Any) -> Conditioning:
        self.residence.come(part.description.network)
        answer = self.encode_tokens(part, *map(self.to_device, tokens))
        return answer.each(lambda t: t.astype(ms.float32))

    def make_latents(self, request: SampleRequest, positive: Conditioning, negative: Conditioning) -> Float:
        from .sampling import make_latents  # mindone comes after the device is chosen

        parts = {self.family.denoiser: self.denoiser} | self.autoencoder
        return make_latents(self.model, parts, request, positive, negative)

    def apply_lora(self, file: Path, scale: float) -> None:
        layers = {name: layer_shapes(self.shapes(self.weights(name))) for name in self.networks}
        self.fold_lora(factors_for(file, layers), scale)  # the weights take it in

    # Training

    def prepare_training(self, config: TrainConfig) -> list[str]:
        trained = super().prepare_training(config)
        self._extra = family_inputs(config, self.model).names
        self._network = self._loss_network()
        self._gradients = gradient_function(self._network, self.optimizer.all, self._compile)
        return trained

    def _loss_network(self) -> LossNetwork:
        layout, conditioning = self.text.layout(), None
        if self.text.trains:
            conditioning = ConditioningNetwork(self.text.encoders, layout, erases=self.text.erases)
        words = ["prompt_embeds", *(["pooled_prompt_embeds"] if layout.pooled else [])]
        words += ["layer_embeds"] if any(part.description.stacks for part in self.text.encoders) else []
        before = ("x", "t", *self._extra, *self.family.masks)
        return LossNetwork(self.denoiser, self.family.inputs, (*before, *words), len(before), conditioning)

    def place(self, config: TrainConfig) -> None:
        """Nothing: networks are in their precision since they were built, and weights come to the device."""

    def add_rows(self, part: LoadedEncoder[Tensor], first: int, rows: Float) -> Tensor:
        weights = self.weights(part.description.network)
        return models.add_rows(part.network, weights[part.description.kind.table], first, rows)

    def put(self, tensor: Tensor, value: Tensor) -> None:
        tensor.copy_(value)

    @staticmethod
    def require_gradients(weights: Mapping[str, ms.Parameter]) -> None:
        for weight in weights.values():
            weight.requires_grad = True

    def make_optimizer(self, parameters: Mapping[str, Mapping[str, ms.Parameter]], config: TrainConfig) -> Optimizer:
        for name, parameter in (item for named in parameters.values() for item in named.items()):
            parameter.name = name  # which recomputation takes from LoRA's, and several bear one name
        return Optimizer(parameters, config, LossScale() if self.dtype is ms.float16 else None)

    def make_ema(self, decay: float) -> EMA:
        return EMA(self.optimizer.buckets, decay)

    def answer(self, batch: Batch) -> Tensor:
        return self._network.answer(*self._given(batch))

    def errors(self, batch: Batch) -> Tensor:
        return self._network(*self._inputs(batch))[1]

    def backward(self, batch: Batch) -> Tensor:
        scale = self.optimizer.loss_scale.scale if self.optimizer.loss_scale else 1.0
        (_, errors), gradients = self._gradients(*self._inputs(batch, scale))
        vectors = flatten_all(self.optimizer.buckets, gradients)
        self._sums = [a + b for a, b in zip(self._sums, vectors, strict=True)] if self._sums else vectors
        return errors

    def update(self, lr: Mapping[str, float]) -> Tensor:
        sums, self._sums = self._sums, []
        return self.optimizer.step(sum_over_ranks(sums) if self.world.size > 1 else sums, lr)

    def _inputs(self, batch: Batch, scale: float = 1.0) -> tuple[Tensor, ...]:
        """What `LossNetwork` takes."""
        mask = batch.mask if batch.mask is not None else np.ones(1, np.float32)
        weighed = map(self.to_device, (batch.weight * np.float32(scale), mask))
        return (self.target(batch), *weighed, *self._given(batch))

    def _given(self, batch: Batch) -> tuple[Tensor, ...]:
        """What of it the denoiser is given."""
        extra = [batch.extra[name] for name in self._extra]
        given = [v if isinstance(v, list) else self.to_device(v) for v in (batch.x, batch.t, *extra)]
        if self.text.trains:
            return (*given, *self._prompt_inputs(batch))
        words = self.text.condition(batch.prompt, batch.dropped)
        return (*given, *map(self.to_device, self.masks(batch, words).values()), *words.values(self.family).values())

    def _prompt_inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What `LossNetwork` takes of the prompts of a batch's rows, where text encoders train."""
        prompt, found = batch.prompt, list[Tensor]()
        nothing = self.to_device(np.zeros(len(prompt), np.float32))  # for what an encoder does not answer
        for part in self.text.encoders:
            if part.answers is not None:
                pair: Sequence[Tensor | None] = part.answers.rows(prompt)[:2]
            else:
                pair = [None if tensor is None else self.rows(tensor, prompt) for tensor in (part.ids, part.masks)]
            found += [nothing if tensor is None else tensor for tensor in pair]
        if self.text.erases:
            found.append(self.to_device(self.text.presence(prompt, batch.dropped)))
        return tuple(found)

    # Facts

    def peak_memory(self) -> int | None:
        if self.device == "CPU":
            return None
        peak = int(ms.runtime.max_memory_allocated())
        ms.runtime.reset_max_memory_allocated()
        return peak

    def device_name(self) -> str:
        mode = "graph mode" if self.graph else "pynative mode"
        if self.device == "CPU":
            return f"cpu, {mode}"
        index = ms.get_context("device_id")
        return f"{ms.hal.get_device_name(index)} (ascend:{index}), {mode}"
