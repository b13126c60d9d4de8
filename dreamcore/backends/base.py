"""What the adapters do alike: the order of a run's steps, around the hooks in which they differ.

Whoever writes another backend may start here, or implement `protocol.Backend` without it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..config.common import ModelSettings
from ..errors import ConfigError
from ..families import AutoencoderClass
from ..formats.embeddings import Embeddings
from ..formats.lora import factors_for, read_factors, save_factors, save_published
from ..formats.lora_arithmetic import added
from ..formats.lora_pair import Pairs
from ..formats.ppdiffusers import PUBLISHED
from ..formats.weights import TABLE, component_file, read_exactly, read_weights, save_component, write_safetensors
from ..io.names import EMBEDDINGS_FILE
from ..io.progress import each
from ..models.folder import ModelFolder
from ..models.latent_space import autoencoder_class
from ..models.lora_files import as_safetensors, find_lora, sets_lengths
from ..text.conditioning import TextConditioner
from ..text.conditions import Conditioning
from ..text.encoder import LoadedEncoder
from ..text.new_words import NewWords
from .ema import EMA
from .hooks import Hooks, T
from .loading import Residence
from .lora import BASE, FROZEN, Lora, TrainedLora, layer_shapes
from .new_words import Inversion
from .pipelines import scaled, to_pixels
from .protocol import Batch, Float, SampleRequest, StepResult, World, cut_results
from .quantization import methods


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
        for name, method in methods(settings, model).items():
            parts[name].quantize(method)
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
        self._words: Inversion[T] | None = None
        self._ema: EMA[Any] | None = None
        self._results: list[tuple[Any, ...]] = []

    # Text

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        part = self.text.encoders[encoder]
        return [list(part.tokenizer.tokenize(part.spelt(prompt))) for prompt in prompts]

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
        if self.family.reference_time is not None and request.images is not None:
            request = replace(request, images=self.encode_images(request.images)[0])
        with self._offloading_on_failure():
            with self._evaluating():
                positive = self.text.embeddings(request.prompts, precision)
                unwanted = [request.negative_prompt] * len(request.prompts)
                negative = self.text.embeddings(unwanted, precision, negative=True)
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
        if sets_lengths(file):
            layers = {name: layer_shapes(self.shapes(self.weights(name))) for name in self.networks}
            self.fold_lora(factors_for(file, layers), scale)
        else:
            self.apply_lora(file, scale)
        self.text.forget()

    def fold_lora(self, pairs: Pairs, scale: float) -> None:
        """Change the weights of layers by factors: W + scale · ΔW."""
        for component in {component for component, _ in pairs}:
            self.residence.come(component)
            self.residence.changed.add(component)
        for (component, layer), pair in pairs.items():
            weight = self._kernel(component, layer)
            changed = added(next(iter(self.arrays(weight).values())), [(pair, scale)], f"lora: {component}.{layer}")
            self.fill(weight, dict.fromkeys(weight, changed))

    def _kernel(self, component: str, layer: str) -> dict[str, T]:
        """A layer's weight by its name, beside which factors may be."""
        weights = self.weights(component)
        name = next(n for n in (f"{layer}.weight", f"{layer}{BASE}.weight") if n in weights)
        return {name: weights[name]}

    def _weight(self, component: str, layer: str) -> Float:
        return next(iter(self.arrays(self._kernel(component, layer)).values()))

    def load_words(self, found: Embeddings) -> None:
        Inversion(self, self.text.encoders, NewWords(found.words), found.rows, {})
        self.text.forget()

    def table(self, part: LoadedEncoder[T]) -> Float:
        self.residence.come(part.description.network)
        return next(iter(self.arrays(self._table(part)).values()))

    def table_shape(self, part: LoadedEncoder[T]) -> tuple[int, ...]:
        return next(iter(self.shapes(self._table(part)).values()))

    def _table(self, part: LoadedEncoder[T]) -> dict[str, T]:
        name = part.description.kind.table
        if not name:
            raise ConfigError(f"embeddings: the {part.description.network} of this model takes no new words")
        return {name: self.weights(part.description.network)[name]}

    def offload(self) -> None:
        self._clear()
        if self.text.trains or self._trained:
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
        denoiser = {} if config.words_alone else {self.family.denoiser: self.denoiser}
        self._trained = denoiser | self.text.prepare(config)
        for name in self.residence.components:
            self.residence.hold(name, self._held(config, name))
        self.place(config)
        if config.train_text_encoder_ti:
            self._words = Inversion.first(self, self.text.encoders, config)
        if config.use_lora and self._trained:
            self._add_lora(config)
        else:
            for name in self._trained:
                self.residence.come(name)
                self.residence.changed.add(name)
        parameters = self._parameters()
        for weights in parameters.values():
            self.require_gradients(weights)
        for network in self._at_work.values():
            if config.gradient_checkpointing:
                self.recompute(network)
            if self._has_dropout:  # nothing else has dropout, so train mode would change nothing
                self.set_mode(network, train=True)
        self.optimizer = self.make_optimizer(parameters, config)
        if config.use_ema:
            self._ema = self.make_ema(config.ema_decay)
        return list(self._at_work)

    def _add_lora(self, config: TrainConfig) -> None:
        """Give the networks factors, which begin as those of a LoRA file where there is one."""
        self._layers = {name: layer_shapes(self.shapes(self.weights(name))) for name in self.networks}
        file, pairs = None, None
        if config.init_lora is not None:
            file = find_lora("init_lora", config.init_lora)
            with as_safetensors(file, self.model) as readable:
                pairs = factors_for(readable, self._layers)
        self._lora = lora = Lora.of(config, self.model, pairs)
        for name in self._trained if lora.reads_weights else ():
            self.residence.come(name)
        self._factors = {name: self.add_lora(network, name, lora) for name, network in self._trained.items()}
        if file is not None and pairs is not None:
            there = self._all_factors
            first = lora.first_factors(file, pairs, self.shapes(there), self._weight)
            self.fill({name: there[name] for name in first}, first)

    def stage(self, batches: Sequence[Batch]) -> None:
        """Nothing is copied ahead, unless an adapter does it."""

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        self._come()
        errors = []
        for batch in micro_batches:
            if self._has_dropout:
                self.set_seed(batch.seed)
            errors.append(self.backward(batch))
        norm = self.update(lr)
        if self._words:
            with self.inference():
                self._words.draw_back()
        if self._ema:
            self._ema.update()
        factor = self.optimizer.rate_factor()
        if isinstance(factor, float):  # before the first update that was applied
            factor = self.to_device(np.array([factor], np.float32))
        self._results.append((self.concat(errors, 0), norm, *([] if factor is None else [factor])))

    def loss(self, batch: Batch) -> Float:
        self._come()
        with self._evaluating():
            return self.to_host(self.errors(batch))

    def metrics(self) -> list[StepResult]:
        if not self._results:
            return []
        numbers = [part.reshape((-1,)) for measured in self._results for part in measured]
        rows, rated = [len(errors) for errors, *_ in self._results], len(self._results[0]) > 2
        self._results.clear()
        return cut_results(self.to_host(self.concat(numbers, 0)), rows, scales=self.optimizer.scales, rated=rated)

    # Files

    def export(self, folder: Path, *, averaged: bool) -> None:
        with self._judged(averaged=averaged):
            if self._lora:
                save_published(self.arrays(self._all_factors), self._lora.scale, folder)
                return
            for name in self._trained:
                save_component(folder / name, self.model.folder(name), self.arrays(self.weights(name)))

    def trained_lora(self, *, averaged: bool) -> TrainedLora | None:
        if self._lora is None:
            return None
        with self._judged(averaged=averaged):
            lora, arrays = self._lora, self.arrays(self._all_factors)
            kept = {name: array.copy() for name, array in arrays.items()}  # they may be the weights' own memory
            return TrainedLora(kept, lora.rank, lora.alpha, self._layers, lora.rslora)

    def new_words(self, *, averaged: bool) -> Embeddings | None:
        if self._words is None:
            return None
        with self._judged(averaged=averaged):
            return self._words.learned()

    def whole_state(self) -> AbstractContextManager[None]:
        shared: Callable[[], AbstractContextManager[None]] | None = getattr(self.optimizer, "whole_state", None)
        return shared() if shared else nullcontext()

    def save_state(self, folder: Path) -> None:
        self.optimizer.save(folder)
        if (words := self.new_words(averaged=False)) is not None:
            words.save(folder / EMBEDDINGS_FILE)
        if self._lora:
            with self._judged(averaged=False):
                save_factors(self.arrays(self._all_factors), folder)
        if self._ema:
            self._ema.save(folder)

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        if self._lora:
            self.fill(self._all_factors, read_factors(folder, self.shapes(self._all_factors)))
        else:
            for name in self._trained:
                self.load_weights(name, folder / name)
        if self._words:
            self._words.fill(Embeddings.read(folder / EMBEDDINGS_FILE))
        if not reset_optimizer:
            self.optimizer.load(folder)
        if self._ema:
            self._ema.load(folder)

    def load_weights(self, name: str, folder: Path) -> None:
        """Give a component that trains the weights of a checkpoint's folder."""
        weights = self.weights(name)
        self.fill(weights, read_exactly(component_file(folder), self.shapes(weights), "this model"))

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
        words = self.text.condition(batch.prompt, batch.dropped)
        arrays = {"x": batch.x, "t": batch.t, **batch.extra, **self.masks(batch, words)}
        given: dict[str, Any] = {
            name: value if isinstance(value, list) else self.to_device(value) for name, value in arrays.items()
        }
        given |= words.values(self.family)
        if self.family.lists:
            given["x"] = [row[:, None] for row in given["x"]]
        return self.family.arguments(given)

    def masks(self, batch: Batch, words: Conditioning[T]) -> dict[str, NDArray[Any]]:
        """Which tokens are words and which padding, by name, where the family wants to know."""
        return words.masks(self.family, batch.x.shape[1] if batch.x.ndim == 3 else batch.x[0, 0].size)

    def together(self, answer: Any) -> Any:
        """The denoiser's answer as one tensor, where it is a list of films of one frame."""
        return self.concat([one[None, :, 0] for one in answer], 0) if isinstance(answer, list) else answer

    def as_film(self, planes: Float) -> Float:
        """Images or latents [N, C, h, w] as the autoencoder is given them: [N, C, 1, h, w] where it has films."""
        return planes[:, :, None] if self.autoencoder_class.frames else planes

    def as_picture(self, planes: Float) -> Float:
        """`as_film` undone."""
        return planes[:, :, 0] if self.autoencoder_class.frames else planes

    def answered(self, answer: Any) -> tuple[Float, Float]:
        """Mean and deviation, each [N, C, h, w], of the autoencoder's answer; of latents alone no deviation."""
        if not self.autoencoder_class.distribution:
            latents = self.as_picture(self.to_host(answer.latent))
            return latents, np.zeros_like(latents)
        return self.as_picture(self.to_host(answer.mean)), self.as_picture(self.to_host(answer.std))

    @cached_property
    def autoencoder_class(self) -> AutoencoderClass:
        """What is said of the autoencoder's class."""
        return autoencoder_class(self.model)

    def target(self, batch: Batch) -> T:
        """What the network must answer, its own answers without factors where the batch asks for them."""
        own = batch.preserved
        if own is None:
            return self.to_device(batch.target)
        try:
            for network in self._trained.values():
                self.switch_lora(network, on=False)
            with self.inference():
                answer: Any = self.answer(own)
        finally:
            for network in self._trained.values():
                self.switch_lora(network, on=True)
        said = batch.target[: len(batch.target) - len(own.target)]
        before = [self.to_device(said)] if len(said) else []
        return self.concat([*before, answer[:, : own.target.shape[1]]], 0)

    def errors(self, batch: Batch) -> T:
        target = self.target(batch)  # first, while nothing is kept for gradients
        return self.squared_error(self.answer(batch), target, self.loss_mask(batch))

    def loss_mask(self, batch: Batch) -> T | None:
        """Weights of the squared error's elements, on the device, where there are any."""
        return None if batch.mask is None else self.to_device(batch.mask)

    def squared_error(self, answer: Any, target: T, mask: T | None) -> T:
        """Mean squared error of each row [B] of the denoiser's answer in float32, by methods that PyTorch's tensors and
        Paddle's have alike."""
        wanted: Any = target
        if answer.shape[1] > wanted.shape[1]:  # a variance besides
            answer = answer[:, : wanted.shape[1]]
        squared = (answer - wanted).square()
        if mask is not None:
            squared = squared * mask
        mean: T = squared.flatten(1).mean(1)
        return mean

    # Within

    def _come(self) -> None:
        """What a pass of the denoiser needs is on the device: itself, and text encoders that train."""
        for name in self._at_work:
            self.residence.come(name)

    @property
    def _at_work(self) -> dict[str, Any]:
        """The networks of training's pass, by component: the denoiser, then text encoders that train or learn words."""
        words = {part.description.network: part.network for part in self.text.encoders if part.trains}
        return {self.family.denoiser: self.denoiser} | words

    def _held(self, settings: ModelSettings, name: str) -> Any:
        """The type in which a component's weights come: that of mixed precision, but for those that train, for the
        autoencoder, which would exceed it, and for text encoders that exceed fp16."""
        encoders = {encoder.network: encoder for encoder in self.model.text_encoders}
        precision = settings.mixed_precision
        if name == self.family.vae or (precision == "fp16" and name in encoders and not encoders[name].fits_fp16):
            precision = "no"
        if isinstance(settings, TrainConfig) and not settings.use_lora:
            words = name in encoders and bool(encoders[name].lora_layers) and settings.train_text_encoder
            trains = name == self.family.denoiser and not settings.words_alone
            precision = "no" if words or trains else precision
        return self.type_of(precision)

    @property
    def _has_dropout(self) -> bool:
        return self._lora is not None and self._lora.dropout > 0

    @property
    def _all_factors(self) -> dict[str, T]:
        return {name: factor for factors in self._factors.values() for name, factor in factors.items()}

    def _parameters(self) -> dict[str, Mapping[str, T]]:
        """What trains, by component, then by COMPONENT.PARAMETER as published."""
        found: dict[str, Mapping[str, T]] = dict(self._words.parameters) if self._words else {}
        if self._lora:
            return {
                component: {name: factor for name, factor in factors.items() if not name.endswith(FROZEN)}
                for component, factors in self._factors.items()
            } | found
        for name in self._trained:
            unused = self.model.unused(name)
            trained = {p: w for p, w in self.weights(name).items() if p != TABLE and not p.startswith(unused)}
            found[name] = {f"{name}.{p}": weight for p, weight in trained.items()}
        return found

    @contextmanager
    def _judged(self, *, averaged: bool) -> Iterator[None]:
        """The weights as they are judged and used: the optimizer's, or the EMA's where that is asked for."""
        average = self._ema.in_place() if self._ema and averaged else nullcontext()
        with average, self.optimizer.judged() if self._trained or self._words else nullcontext():
            yield

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The model as it is judged and used: without dropout, under its EMA where the run keeps one."""
        training = [network for network in self._at_work.values() if network.training]
        try:
            for network in training:
                self.set_mode(network, train=False)
            with self._judged(averaged=True), self.inference():
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
