"""The MindSpore backend: mindone's networks under core's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcore.backend import Batch, SampleRequest, StepResult, cut_results
from dreamcore.choices import family_inputs
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings
from dreamcore.errors import ConfigError
from dreamcore.families import TextEncoder
from dreamcore.lora import Lora, save_factors, save_published
from dreamcore.lossscale import LossScale
from dreamcore.modelfolder import ModelFolder
from dreamcore.pipelines import scaled, to_pixels
from dreamcore.weights import save_component

from .devices import choose_device  # isort: skip  # before MindSpore: it settles how MindSpore starts

import mindspore as ms
from mindspore import Tensor, ops

from . import lora, models
from .buckets import flatten_all
from .launch import join_world, sum_over_ranks
from .memory import out_of_memory as out_of_memory
from .network import LossNetwork, WordsNetwork, gradient_function, recompute
from .optim import MovingAverage, Optimizer
from .words import Part, Words

DTYPES = {"no": ms.float32, "fp16": ms.float16, "bf16": ms.bfloat16}


def load(model: ModelFolder, settings: ModelSettings) -> MindSporeBackend:
    """The entry point `dreambooth.backends`."""
    return MindSporeBackend(model, settings)


class MindSporeBackend:
    """`dreamcore.backend.Backend` on MindSpore."""

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.model, self.family = model, model.family
        self.device, self.graph = choose_device(settings)
        self._check_mode(settings)
        self.dtype = _check_precision(settings.mixed_precision, self.device)
        self._compile = partial(ms.jit, jit_level=settings.jit_level) if self.graph else _as_it_is
        self.world = join_world()
        self._weights: dict[str, models.Weights] = {}
        self.denoiser = self._load(self.family.denoiser, self.dtype)
        self.vae = self._load(self.family.vae, ms.float32)
        self.words = Words(model, [self._load_encoder(e) for e in model.text_encoders])
        self._trained: dict[str, Any] = {}
        self._lora: Lora | None = None
        self._factors: dict[str, models.Weights] = {}
        self._has_dropout = False
        self._optimizer: Optimizer | None = None
        self._average: MovingAverage | None = None
        self._results: list[tuple[Tensor, Tensor]] = []

    def _check_mode(self, settings: ModelSettings) -> None:
        """Refuse what cannot be computed in this mode, before anything is loaded."""
        unsaid = settings.mode is None and settings.device is None  # otherwise the table of uses has judged it
        if unsaid and not self.graph and settings.jit_level != "O1" and "jit_level" not in settings.suggested:
            raise ConfigError(f"jit_level={settings.jit_level!r}: acts only in graph mode; remove it")
        if self.graph and self.device == "CPU" and self.family.denoiser != "unet":
            raise ConfigError(
                f"mode: graph needs an Ascend device for {self.family.name} (MindSpore's CPU compiler lacks "
                "operators); use pynative"
            )
        if not isinstance(settings, TrainConfig) or not settings.use_lora or not settings.lora_dropout:
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

    def _load(self, name: str, dtype: Any) -> Any:
        network, self._weights[name] = models.load_component(self.model, name)
        if dtype is not ms.float32:
            ms.amp.auto_mixed_precision(network, "auto", dtype)
        return network

    def _load_encoder(self, encoder: TextEncoder) -> Part:
        dtype = self.dtype if encoder.fits_fp16 or self.dtype is not ms.float16 else ms.float32
        tokenizer = models.load_tokenizer(self.model, encoder.tokenizer)
        return Part(encoder, tokenizer, self._load(encoder.network, dtype))

    # -- words

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        return [list(self.words.parts[encoder].tokenizer.tokenize(prompt)) for prompt in prompts]

    def tokenizer_window(self, encoder: int = 0) -> int:
        part = self.words.parts[encoder]
        return part.max_length - int(part.tokenizer.num_special_tokens_to_add())

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.words.summary(p) for p in prompts])

    def set_prompts(self, prompts: Sequence[str]) -> None:
        self.words.set_prompts(prompts)

    # -- pictures to latents and back

    def encode_images(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        moments = self.vae.encode(_tensor(pixels))[0].asnumpy().astype(np.float32)
        mean, log_variance = np.split(moments, 2, axis=1)
        return scaled(mean, np.exp(0.5 * np.clip(log_variance, -30, 20)), self.model)

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        from .sampling import make_latents  # mindone comes after the device is chosen

        parts = {self.family.denoiser: self.denoiser, self.family.vae: self.vae}
        with self._at_rest():
            positive = self.words.embeddings(request.prompts)
            negative = self.words.embeddings([request.negative_prompt] * len(request.prompts))
            latents = make_latents(self.model, parts, request, positive, negative)
        return to_pixels(self.vae.decode(_tensor(latents))[0].asnumpy().astype(np.float32), self.model)

    def load_lora(self, file: Path, scale: float) -> None:
        lora.fold(file, self._weights, scale)
        self.words.forget()

    # -- training

    def prepare_training(self, config: TrainConfig) -> list[str]:
        self._trained = {self.family.denoiser: self.denoiser} | self.words.prepare(config)
        if config.use_lora:
            self._lora = Lora.of(config, self.model)
            self._has_dropout = self._lora.dropout > 0
            self._factors = {name: lora.add_lora(n, name, self._lora) for name, n in self._trained.items()}
        parameters = self._parameters()
        for parameter in (p for named in parameters.values() for p in named.values()):
            parameter.requires_grad = True
        self._set_modes(config)  # after the line above: recomputation looks at once for what trains
        for name, parameter in (item for named in parameters.values() for item in named.items()):
            parameter.name = name  # which recomputation takes from LoRA's, and several bear one name
        scale = LossScale() if self.dtype is ms.float16 else None
        self._optimizer = Optimizer(parameters, config, scale)
        if config.use_ema:
            self._average = MovingAverage(self._optimizer.buckets, config.ema_decay)
        self._extra = family_inputs(config, self.model).names
        self._network = self._loss_network()
        self._gradients = gradient_function(self._network, self._optimizer.all, self._compile)
        return list(self._trained)

    def _loss_network(self) -> LossNetwork:
        layout, words = self.words.layout(), None
        if self.words.trains:
            words = WordsNetwork(self.words.parts, layout, erases=self.model.zeroes_empty)
        names = ("x", "t", *self._extra, "words", *(["pooled"] if layout.pooled else []))
        return LossNetwork(self.denoiser, self.family.inputs, names, words)

    def _set_modes(self, config: TrainConfig) -> None:
        """Train mode only where it matters: LoRA's dropout asks for it, nothing else has dropout."""
        for network in self._trained.values():
            if config.gradient_checkpointing:
                recompute(network)
            if self._has_dropout:
                network.set_train(True)

    def _parameters(self) -> dict[str, models.Weights]:
        """What trains, by component, under published names."""
        if self._lora:
            return self._factors
        found = {name: models.trainable(self._weights[name], self.model.unused(name)) for name in self._trained}
        return {name: {f"{name}.{p}": w for p, w in weights.items()} for name, weights in found.items()}

    def park(self) -> None:
        """Nothing: MindSpore has no way to take a network off its device for a while."""

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        scale = self._optimizer.loss_scale.scale if self._optimizer.loss_scale else 1.0
        errors: list[Tensor] = []
        total: list[Tensor] = []
        for batch in micro_batches:
            if self._has_dropout:
                ms.set_seed(batch.seed)
            (_, error), gradients = self._gradients(*self._inputs(batch, scale))
            vectors = flatten_all(self._optimizer.buckets, gradients)
            total = [a + b for a, b in zip(total, vectors, strict=True)] if total else vectors
            errors.append(error)
        if self.world.size > 1:
            total = sum_over_ranks(total)
        norm = self._optimizer.step(total, lr)
        if self._average:
            self._average.update()
        self._results.append((ops.cat(errors), norm))

    def _inputs(self, batch: Batch, scale: float = 1.0) -> tuple[Tensor, ...]:
        """What `LossNetwork` takes."""
        mask = batch.mask if batch.mask is not None else np.ones(1, np.float32)
        arrays = (batch.target, batch.weight * np.float32(scale), mask, batch.x, batch.t)
        told = (batch.extra[name] for name in self._extra)
        return (*map(_tensor, (*arrays, *told)), *self.words.inputs(batch.prompt))

    def loss(self, batch: Batch) -> NDArray[np.float32]:
        with self._at_rest():
            return np.array(self._network(*self._inputs(batch))[1].asnumpy())

    def metrics(self) -> list[StepResult]:
        if not self._results:
            return []
        assert self._optimizer is not None
        flat = ops.cat([ops.cat([e, n.reshape(1)]) for e, n in self._results]).asnumpy()
        rows = [e.size for e, _ in self._results]
        self._results.clear()
        return cut_results(flat, rows, scales=self._optimizer.loss_scale is not None)

    # -- files

    def export(self, folder: Path, *, averaged: bool) -> None:
        with self._average.in_place() if self._average and averaged else nullcontext():
            if self._lora:
                save_published(models.arrays(self._all_factors()), self._lora.scale, folder)
                return
            for name in self._trained:
                save_component(folder / name, self.model.folder(name), models.arrays(self._weights[name]))

    def save_state(self, folder: Path) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        self._optimizer.save(folder)
        if self._lora:
            save_factors(models.arrays(self._all_factors()), folder)
        if self._average:
            self._average.save(folder)

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        if self._lora:
            lora.restore_factors(self._all_factors(), folder)
        else:
            for name in self._trained:
                models.restore_component(self._weights[name], folder / name)
        if not reset_optimizer:
            self._optimizer.load(folder)
        if self._average:
            self._average.load(folder)

    def rewrite_weights(self, files: Sequence[Path], folder: Path) -> None:
        models.rewrite_weights(files, folder)

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

    # -- small things

    def _all_factors(self) -> models.Weights:
        return {name: factor for named in self._factors.values() for name, factor in named.items()}

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """The model as it is judged and used: without dropout, under its moving average where the run keeps one."""
        training = [network for network in self._trained.values() if network.training]
        for network in training:
            network.set_train(False)
        try:
            with self._average.in_place() if self._average else nullcontext():
                yield
        finally:
            for network in training:
                network.set_train(True)


def _tensor(array: NDArray[Any]) -> Tensor:
    return Tensor(np.ascontiguousarray(array))


def _as_it_is(function: Any) -> Any:
    return function


def _check_precision(name: str, device: str) -> Any:
    """The arithmetic's type.

    Raises:
        ConfigError: the device lacks it.
    """
    if name != "no" and device == "CPU":
        raise ConfigError(f"mixed_precision: {name} needs an Ascend device; a CPU computes in float32 here (no)")
    return DTYPES[name]
