"""What the adapters do alike: the order of a run's steps, around the hooks in which they differ.

Whoever writes another backend may start here, or implement `protocol.Backend` without it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..config.common import ModelSettings
from ..formats.lora import factors_for, read_factors, save_factors, save_published
from ..formats.ppdiffusers import PUBLISHED
from ..formats.weights import TABLE, component_file, read_exactly, read_weights, save_component, write_safetensors
from ..io.progress import each
from ..models.folder import ModelFolder
from ..models.lora_files import as_safetensors, find_lora
from ..text.conditioning import LoadedEncoder, TextConditioner
from .ema import EMA
from .hooks import Hooks, T
from .loading import Residence
from .lora import Lora, TrainedLora, layer_shapes
from .pipelines import scaled, to_pixels
from .protocol import Batch, Float, SampleRequest, StepResult, World, cut_results


class BaseBackend(Hooks[T]):
    """`protocol.Backend` around an adapter's hooks.

    A subclass settles its device, joins its process group, and then calls this constructor, which loads the model.
    """

    world: World
    dtype: Any
    """The arithmetic's type."""
    on_device: bool = False
    """Whether networks are computed in a memory that is not the host's, and can leave it."""

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.model, self.family = model, model.family
        loaded = each(model.networks, "loading the model's networks")
        parts = {name: self.load_component(model, name, self._held(settings, name)) for name in loaded}
        self.residence = Residence(parts, self.move)
        self.denoiser = parts[self.family.denoiser].network
        self.vae: Any = None if self.family.vae is None else parts[self.family.vae].network
        encoders: list[LoadedEncoder[T]] = []
        for encoder in model.text_encoders:
            tokenizer = self.load_tokenizer(model, encoder.tokenizer)
            encoders.append(LoadedEncoder(encoder, tokenizer, parts[encoder.network].network, model.window(encoder)))
        self.text = TextConditioner(model, encoders, self, self.dtype)
        decodes = self.family.vae is not None
        self._slices, self._tiles = decodes and settings.enable_vae_slicing, decodes and settings.enable_vae_tiling
        self._trained: dict[str, Any] = {}
        self._lora: Lora | None = None
        self._factors: dict[str, Mapping[str, T]] = {}
        self._layers: dict[str, dict[str, Sequence[int]]] = {}
        self._ema: EMA[Any] | None = None
        self._results: list[tuple[Any, Any]] = []

    # Text

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        return [list(self.text.encoders[encoder].tokenizer.tokenize(prompt)) for prompt in prompts]

    def tokenizer_window(self, encoder: int = 0) -> int:
        part = self.text.encoders[encoder]
        return part.max_length - int(part.tokenizer.num_special_tokens_to_add(pair=False))

    def embed(self, prompts: Sequence[str]) -> Float:
        return np.stack([self.to_host(self.text.summary(p)) for p in each(prompts, "asking the text encoder")])

    def set_prompts(self, prompts: Sequence[str]) -> None:
        self.text.set_prompts(prompts)

    # Images

    def encode_images(self, pixels: Float) -> tuple[Float, Float]:
        if self.vae is None:
            return pixels, np.zeros_like(pixels)
        with self._offloading_on_failure(), self.inference():
            self.residence.come(str(self.family.vae))
            return scaled(*self.encode_pixels(pixels), self.model)

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        precision = self.precision(request)
        with self._offloading_on_failure():
            with self._evaluating():
                positive = self.text.embeddings(request.prompts, precision)
                negative = self.text.embeddings([request.negative_prompt] * len(request.prompts), precision)
                self._come()
                latents = self.make_latents(request, positive, negative)
            if self.vae is None:
                return to_pixels(latents, self.model)
            self.residence.come(str(self.family.vae))
            with self.inference():
                return to_pixels(self._decoded(latents), self.model)

    def _decoded(self, latents: Float) -> Float:
        """What the autoencoder makes of latents, as many at once and in tiles or not as the settings say."""
        self.vae.use_tiling = self._tiles
        try:
            parts = np.split(latents, len(latents)) if self._slices else [latents]
            return np.concatenate([self.decode_latents(part) for part in parts])
        finally:
            self.vae.use_tiling = False

    def load_lora(self, file: Path, scale: float) -> None:
        self.apply_lora(file, scale)
        self.text.forget()

    def offload(self) -> None:
        self._clear()
        if self._trained:
            self._come()

    def _clear(self) -> None:
        if self.family.vae is not None:
            self.residence.leave(self.family.vae)
        for part in self.text.encoders:
            self.rest(part)

    def begin_words(self) -> None:
        """Make room for text encoders where the device's memory is not the host's: such as T5 and the denoiser need not
        fit there together."""
        if self.on_device and not self.text.trains:
            self.residence.leave(self.family.denoiser)

    def rest(self, part: LoadedEncoder[T]) -> None:
        if not part.trains:
            self.residence.leave(part.description.network)

    # Training

    @property
    def networks(self) -> dict[str, Any]:
        """The denoiser and the text encoders, by component."""
        return {self.family.denoiser: self.denoiser} | self.text.networks()

    @property
    def autoencoder(self) -> dict[str, Any]:
        """The autoencoder, by component, where there is one."""
        return {} if self.family.vae is None else {self.family.vae: self.vae}

    def prepare_training(self, config: TrainConfig) -> list[str]:
        self._trained = {self.family.denoiser: self.denoiser} | self.text.prepare(config)
        for name in self.residence.components:
            self.residence.hold(name, self._held(config, name))
        self.place(config)
        if config.use_lora:
            self._add_lora(config)
        else:
            for name in self._trained:
                self.residence.come(name)
                self.residence.changed.add(name)
        parameters = self._parameters()
        for weights in parameters.values():
            self.require_gradients(weights)
        for network in self._trained.values():
            if config.gradient_checkpointing:
                self.recompute(network)
            if self._has_dropout:  # nothing else has dropout, so train mode would change nothing
                self.set_mode(network, train=True)
        self.optimizer = self.make_optimizer(parameters, config)
        if config.use_ema:
            self._ema = self.make_ema(config.ema_decay)
        return list(self._trained)

    def _add_lora(self, config: TrainConfig) -> None:
        """Give the networks factors, which begin as those of a LoRA file where there is one."""
        self._layers = {name: layer_shapes(self.shapes(self.weights(name))) for name in self.networks}
        file, pairs = None, None
        if config.init_lora is not None:
            file = find_lora("init_lora", config.init_lora)
            with as_safetensors(file, self.model) as readable:
                pairs = factors_for(readable, self._layers)
        self._lora = lora = Lora.of(config, self.model, pairs)
        self._factors = {name: self.add_lora(network, name, lora) for name, network in self._trained.items()}
        if file is not None and pairs is not None:
            there = self._all_factors
            first = lora.first_factors(file, pairs, self.shapes(there))
            self.fill({name: there[name] for name in first}, first)

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        self._come()
        errors = []
        for batch in micro_batches:
            if self._has_dropout:
                self.set_seed(batch.seed)
            errors.append(self.backward(batch))
        norm = self.update(lr)
        if self._ema:
            self._ema.update()
        self._results.append((self.concat(errors, 0), norm))

    def loss(self, batch: Batch) -> Float:
        self._come()
        with self._evaluating():
            return self.to_host(self.errors(batch))

    def metrics(self) -> list[StepResult]:
        if not self._results:
            return []
        numbers = [part for errors, norm in self._results for part in (errors, norm.reshape((1,)))]
        rows = [len(errors) for errors, _ in self._results]
        self._results.clear()
        return cut_results(self.to_host(self.concat(numbers, 0)), rows, scales=self.optimizer.scales)

    # Files

    def export(self, folder: Path, *, averaged: bool) -> None:
        with self._ema.in_place() if self._ema and averaged else nullcontext():
            if self._lora:
                save_published(self.arrays(self._all_factors), self._lora.scale, folder)
                return
            for name in self._trained:
                save_component(folder / name, self.model.folder(name), self.arrays(self.weights(name)))

    def trained_lora(self, *, averaged: bool) -> TrainedLora | None:
        if self._lora is None:
            return None
        with self._ema.in_place() if self._ema and averaged else nullcontext():
            return TrainedLora(self.arrays(self._all_factors), self._lora.rank, self._lora.alpha, self._layers)

    def save_state(self, folder: Path) -> None:
        self.optimizer.save(folder)
        if self._lora:
            save_factors(self.arrays(self._all_factors), folder)
        if self._ema:
            self._ema.save(folder)

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        if self._lora:
            self.fill(self._all_factors, read_factors(folder, self.shapes(self._all_factors)))
        else:
            for name in self._trained:
                weights, file = self.weights(name), component_file(folder / name)
                self.fill(weights, read_exactly(file, self.shapes(weights), "this model"))
        if not reset_optimizer:
            self.optimizer.load(folder)
        if self._ema:
            self._ema.load(folder)

    def rewrite_weights(self, files: Sequence[Path], folder: Path) -> None:
        """Pickled weights, which only PyTorch's adapter opens, are carried over as they are."""
        if files[0].suffix == ".bin":
            for file in files:
                shutil.copyfile(file, folder / file.name)
            return
        paddles = self.model.index[folder.name][0] in PUBLISHED
        write_safetensors(component_file(folder), read_weights(files, paddles=paddles))

    # For the hooks of adapters

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """The denoiser's arguments; text encoders that train run for them."""
        values = {"x": batch.x, "t": batch.t, **batch.extra}
        given = {name: self.to_device(array) for name, array in values.items()}
        return self.family.arguments(given | self.text.condition(batch.prompt).values())

    def squared_error(self, answer: Any, batch: Batch) -> T:
        """Mean squared error of each row [B] of the denoiser's answer in float32, by methods that PyTorch's tensors and
        Paddle's have alike."""
        if answer.shape[1] > batch.target.shape[1]:  # a variance besides
            answer = answer[:, : batch.target.shape[1]]
        squared = (answer - self.to_device(batch.target)).square()
        if batch.mask is not None:
            squared = squared * self.to_device(batch.mask)
        mean: T = squared.flatten(1).mean(1)
        return mean

    # Within

    def _come(self) -> None:
        """What a pass of the denoiser needs is on the device: itself, and text encoders that train."""
        for name in self._trained or (self.family.denoiser,):
            self.residence.come(name)

    def _held(self, settings: ModelSettings, name: str) -> Any:
        """The type in which a component's weights come: that of mixed precision, but for those that train, for the
        autoencoder, which would exceed it, and for text encoders that exceed fp16."""
        encoders = {encoder.network: encoder for encoder in self.model.text_encoders}
        precision = settings.mixed_precision
        if name == self.family.vae or (precision == "fp16" and name in encoders and not encoders[name].fits_fp16):
            precision = "no"
        if isinstance(settings, TrainConfig) and not settings.use_lora:
            words = name in encoders and bool(encoders[name].lora_layers) and settings.train_text_encoder
            precision = "no" if words or name == self.family.denoiser else precision
        return self.type_of(precision)

    @property
    def _has_dropout(self) -> bool:
        return self._lora is not None and self._lora.dropout > 0

    @property
    def _all_factors(self) -> dict[str, T]:
        return {name: factor for factors in self._factors.values() for name, factor in factors.items()}

    def _parameters(self) -> dict[str, Mapping[str, T]]:
        """What trains, by component, then by COMPONENT.PARAMETER as published."""
        if self._lora:
            return self._factors
        found: dict[str, Mapping[str, T]] = {}
        for name in self._trained:
            unused = self.model.unused(name)
            trained = {p: w for p, w in self.weights(name).items() if p != TABLE and not p.startswith(unused)}
            found[name] = {f"{name}.{p}": weight for p, weight in trained.items()}
        return found

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The model as it is judged and used: without dropout, under its EMA where the run keeps one."""
        training = [network for network in self._trained.values() if network.training]
        try:
            for network in training:
                self.set_mode(network, train=False)
            with self._ema.in_place() if self._ema else nullcontext(), self.inference():
                yield
        finally:
            for network in training:
                self.set_mode(network, train=True)

    @contextmanager
    def _offloading_on_failure(self) -> Iterator[None]:
        """Leave nothing on the device that training does not use, if this fails."""
        try:
            yield
        except BaseException:
            self._clear()
            raise
