"""The MindSpore backend: mindone's networks under core's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcore.backend import Batch, SampleRequest, StepResult
from dreamcore.choices import checked_length
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings
from dreamcore.errors import ConfigError
from dreamcore.lossscale import LossScale
from dreamcore.modelfolder import ModelFolder

from .devices import choose_device  # isort: skip  # before MindSpore: it settles how MindSpore starts

import mindspore as ms
from mindspore import Tensor, ops

from . import lora, models
from .buckets import flatten_all
from .launch import join_world, sum_over_ranks
from .network import LossNetwork, encode, gradient_function, recompute
from .optim import MovingAverage, Optimizer

DTYPES = {"no": ms.float32, "fp16": ms.float16, "bf16": ms.bfloat16}


def load(model: ModelFolder, settings: ModelSettings) -> MindSporeBackend:
    """The entry point `dreambooth.backends`."""
    return MindSporeBackend(model, settings)


class MindSporeBackend:
    """`dreamcore.backend.Backend` on MindSpore."""

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.model, self.family = model, model.family
        self.device, graph = choose_device(settings)
        self.dtype = _check_precision(settings.mixed_precision, self.device)
        self._compile = partial(ms.jit, jit_level=settings.jit_level) if graph else _as_it_is
        self.world = join_world()
        part, *_ = self.family.text_encoders
        tokenizer, encoder = part.tokenizer, part.network
        self._encoder_name = encoder
        self._weights: dict[str, models.Weights] = {}
        self.denoiser = self._load(self.family.denoiser)
        self.text_encoder = self._load(encoder)
        self.vae = self._load(self.family.vae)
        self.tokenizer = models.load_tokenizer(model, tokenizer)
        self._max_length = int(self.tokenizer.model_max_length)
        self._uses_mask = bool(getattr(self.text_encoder.config, "use_attention_mask", None))
        self._trained: list[str] = []
        self._factors: dict[str, models.Weights] | None = None
        self._lora_scale = 1.0
        self._has_dropout = False
        self._optimizer: Optimizer | None = None
        self._average: MovingAverage | None = None
        self._embedded: dict[str, Tensor] = {}
        self._results: list[tuple[Tensor, Tensor]] = []

    def _load(self, name: str) -> Any:
        network, self._weights[name] = models.load_component(self.model, name)
        if self.dtype is not ms.float32 and name != self.family.vae:
            ms.amp.auto_mixed_precision(network, "auto", self.dtype)
        return network

    # -- words

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        return [list(self.tokenizer.tokenize(prompt)) for prompt in prompts]

    def tokenizer_window(self, encoder: int = 0) -> int:
        return self._max_length - 2

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        ends = [int(self._ids(p)[1].asnumpy().sum()) - 1 for p in prompts]
        return np.stack([self._embedding(p)[0, end].asnumpy() for p, end in zip(prompts, ends, strict=True)])

    def set_prompts(self, prompts: Sequence[str]) -> None:
        self._masks = ops.cat([self._ids(p)[1] for p in prompts])
        embed = self._ids if self._encoder_name in self._trained else lambda p: (self._embedding(p),)
        self._conditions = ops.cat([embed(p)[0] for p in prompts])

    def _ids(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, each [1, length]; padded with the tokenizer's own token, as its model was
        trained (end-of-text for SD 1, "!" for SD 2)."""
        out = self.tokenizer(
            prompt, padding="max_length", max_length=self._max_length, truncation=True, return_tensors="np"
        )
        return Tensor(out.input_ids, ms.int64), Tensor(out.attention_mask, ms.int64)

    def _embedding(self, prompt: str) -> Tensor:
        """[1, tokens, width]; kept as long as the text encoder does not change.  Embedded one prompt at a time, so
        that the bits do not depend on which others there are."""
        if prompt in self._embedded:
            return self._embedded[prompt]
        embedding = encode(self.text_encoder, *self._ids(prompt), self._uses_mask).astype(ms.float32)
        if self._encoder_name not in self._trained:
            self._embedded[prompt] = embedding
        return embedding

    # -- pictures to latents and back

    def encode_images(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        moments = self.vae.encode(_tensor(pixels))[0].asnumpy().astype(np.float32)
        mean, log_variance = np.split(moments, 2, axis=1)
        scale = np.float32(self.vae.config.scaling_factor)
        return mean * scale, np.exp(0.5 * np.clip(log_variance, -30, 20)) * scale

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        from .sampling import make_latents, make_pipeline, to_pixels  # mindone comes after the device is chosen

        parts = {"vae": self.vae, "text_encoder": self.text_encoder, "tokenizer": self.tokenizer, "unet": self.denoiser}
        pipeline = make_pipeline(request, self.model.config("scheduler"), **parts)
        factor = self.model.latent_factor
        size = (request.noise.shape[2] * factor, request.noise.shape[3] * factor)
        with self._at_rest():
            embeddings = ops.cat([self._embedding(p) for p in request.prompts])
            negative = ops.cat([self._embedding(request.negative_prompt)] * len(request.prompts))
            latents = make_latents(pipeline, request, embeddings, negative, size)
        return to_pixels(self.vae.decode(latents.astype(ms.float32) / self.vae.config.scaling_factor)[0])

    def load_lora(self, file: Path, scale: float) -> None:
        lora.fold(file, self._weights, scale)
        self._embedded.clear()

    # -- training

    def prepare_training(self, config: TrainConfig) -> list[str]:
        if config.tokenizer_max_length is not None:
            self._max_length = checked_length(config.tokenizer_max_length, self._max_length)
        networks = {self.family.denoiser: self.denoiser}
        if config.train_text_encoder:
            networks[self._encoder_name] = self.text_encoder
        self._trained = list(networks)
        if config.use_lora:
            self._add_lora(config, networks)
        parameters = self._parameters()
        for parameter in (p for named in parameters.values() for p in named.values()):
            parameter.requires_grad = True
        self._set_modes(config, networks)  # after the line above: recomputation looks at once for what trains
        scale = LossScale() if self.dtype is ms.float16 else None
        self._optimizer = Optimizer(parameters, config, scale)
        if config.use_ema:
            self._average = MovingAverage(self._optimizer.buckets, config.ema_decay)
        encoder = self.text_encoder if config.train_text_encoder else None
        self._network = LossNetwork(self.denoiser, encoder, uses_mask=self._uses_mask)
        self._gradients = gradient_function(self._network, self._optimizer.all, self._compile)
        return self._trained

    def _add_lora(self, config: TrainConfig, networks: Mapping[str, Any]) -> None:
        alpha = config.lora_alpha if config.lora_alpha is not None else float(config.rank)
        self._lora_scale = alpha / config.rank
        self._has_dropout = config.lora_dropout > 0
        self._factors = {}
        for name, network in networks.items():
            layers = self.family.text_lora_layers
            if name == self.family.denoiser:
                layers = tuple(config.lora_layers or self.family.lora_layers)
            self._factors[name] = lora.add_lora(
                network, name, layers, config.rank, alpha, config.lora_dropout, config.seed
            )

    def _set_modes(self, config: TrainConfig, networks: Mapping[str, Any]) -> None:
        """Train mode only where it matters: LoRA's dropout asks for it, nothing else has dropout."""
        again = config.gradient_checkpointing
        if again and self._has_dropout:
            raise ConfigError(
                "gradient_checkpointing: MindSpore would drop other values the second time; leave out lora_dropout"
            )
        for network in networks.values():
            if again:
                recompute(network)
            if self._has_dropout:
                network.set_train(True)

    def _parameters(self) -> dict[str, models.Weights]:
        """What trains, by component, under published names."""
        if self._factors is not None:
            return self._factors
        return {name: {f"{name}.{p}": w for p, w in self._weights[name].items()} for name in self._trained}

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
        rows = _tensor(batch.prompt)
        mask = batch.mask if batch.mask is not None else np.ones((1, 1, 1, 1), np.float32)
        arrays = (batch.x, batch.t, batch.target, batch.weight * np.float32(scale))
        words = ops.gather(self._conditions, rows, 0), ops.gather(self._masks, rows, 0)
        return (*map(_tensor, arrays), *words, _tensor(mask))

    def loss(self, batch: Batch) -> NDArray[np.float32]:
        with self._at_rest():
            return np.array(self._network(*self._inputs(batch))[1].asnumpy())

    def metrics(self) -> list[StepResult]:
        if not self._results:
            return []
        assert self._optimizer is not None
        flat = ops.cat([ops.cat([e, n.reshape(1)]) for e, n in self._results]).asnumpy()
        rows = np.split(flat, np.cumsum([e.size + 1 for e, _ in self._results])[:-1])
        self._results.clear()
        scales = self._optimizer.loss_scale is not None
        return [StepResult(r[:-1].copy(), float(r[-1]), skipped=scales and not np.isfinite(r[-1])) for r in rows]

    # -- files

    def export(self, folder: Path, *, averaged: bool) -> None:
        with self._average.in_place() if self._average and averaged else nullcontext():
            if self._factors is not None:
                lora.save_published(self._all_factors(), self._lora_scale, folder)
                return
            for name in self._trained:
                models.save_component(self._weights[name], self.model.folder(name), folder / name)

    def save_state(self, folder: Path) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        self._optimizer.save(folder)
        if self._factors is not None:
            lora.save_factors(self._all_factors(), folder)
        if self._average:
            self._average.save(folder)

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        if self._factors is not None:
            lora.restore_factors(self._all_factors(), folder)
        else:
            for name in self._trained:
                models.restore_component(self._weights[name], self.model.folder(name), folder / name)
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
        return "cpu, pynative mode" if self.device == "CPU" else f"{ms.hal.get_device_name(0)}"

    # -- small things

    def _all_factors(self) -> models.Weights:
        assert self._factors is not None
        return {name: factor for named in self._factors.values() for name, factor in named.items()}

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """The model as it is judged and used: without dropout, under its moving average where the run keeps one."""
        training = [network for network in (self.denoiser, self.text_encoder) if network.training]
        for network in training:
            network.set_train(False)
        with self._average.in_place() if self._average else nullcontext():
            yield
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
