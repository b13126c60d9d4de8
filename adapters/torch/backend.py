"""The PyTorch backend: diffusers' networks under core's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from dreamcore.backend import Batch, SampleRequest, StepResult
from dreamcore.choices import checked_length
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings
from dreamcore.errors import ConfigError
from dreamcore.modelfolder import ModelFolder

from . import lora, models
from .average import MovingAverage
from .launch import choose_device, join_world, sum_gradients
from .optim import Optimizer
from .precision import autocast, check_precision, set_tf32
from .sampling import make_latents, make_pipeline, to_pixels
from .words import Words

for logging in (diffusers.utils.logging, transformers.utils.logging):
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # their warnings are of torchvision and of keys, which are all checked here


def load(model: ModelFolder, settings: ModelSettings) -> TorchBackend:
    """The entry point `dreambooth.backends`."""
    return TorchBackend(model, settings)


class TorchBackend:
    """`dreamcore.backend.Backend` on PyTorch."""

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.model, self.family = model, model.family
        self.device = choose_device(settings.device)
        self.world = join_world(self.device)
        self.dtype = self._class_dtype = check_precision(settings.mixed_precision, self.device)
        set_tf32(settings.allow_tf32, self.device)
        (tokenizer, encoder), *_ = self.family.text_encoders
        self._encoder_name = encoder
        self.denoiser = models.load_component(model, self.family.denoiser).to(self.device)
        self.text_encoder = models.load_component(model, encoder)
        self.vae = models.load_component(model, self.family.vae)
        self.tokenizer = models.load_tokenizer(model, tokenizer)
        self.words = Words(self.tokenizer, self.text_encoder, self.device, self.dtype)
        self._trained: dict[str, torch.nn.Module] = {}
        self._lora_scale: float | None = None
        self._has_dropout = False
        self._optimizer: Optimizer | None = None
        self._average: MovingAverage | None = None
        self._compiled = False
        self._results: list[tuple[torch.Tensor, torch.Tensor]] = []

    # -- words

    def tokenize(self, prompts: Sequence[str]) -> list[list[str]]:
        return [list(self.tokenizer.tokenize(prompt)) for prompt in prompts]

    def tokenizer_window(self) -> int:
        return self.words.max_length - 2

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.words.summary(p).cpu().numpy() for p in prompts])

    def set_prompts(self, prompts: Sequence[str]) -> None:
        self.words.set_prompts(prompts)

    # -- pictures to latents and back

    @torch.no_grad()
    def encode_images(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        posterior = self.vae.to(self.device).encode(self._to_device(pixels)).latent_dist
        scale = self.vae.config.scaling_factor
        return (posterior.mean * scale).cpu().numpy(), (posterior.std * scale).cpu().numpy()

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        pipeline = make_pipeline(
            self.vae,
            self.text_encoder,
            self.tokenizer,
            self.denoiser,
            request.scheduler,
            self.model.config("scheduler"),
        )
        dtype = self._class_dtype if request.for_training else self.dtype
        factor = self.model.latent_factor
        size = (request.noise.shape[2] * factor, request.noise.shape[3] * factor)
        with self._at_rest():
            embeddings = torch.cat([self.words.embedding(p, dtype) for p in request.prompts])
            negative = self.words.embedding(request.negative_prompt, dtype).expand_as(embeddings)
            with autocast(self.device, dtype):
                latents = make_latents(pipeline, request, embeddings, negative, size)
        with torch.no_grad():
            scaled = latents.float() / self.vae.config.scaling_factor
            return to_pixels(self.vae.to(self.device).decode(scaled).sample)

    def load_lora(self, file: Path, scale: float) -> None:
        pipeline = diffusers.StableDiffusionPipeline(
            self.vae, self.text_encoder, self.tokenizer, self.denoiser, None, None, None, requires_safety_checker=False
        )
        try:
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="lora")
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"lora: {file}: cannot be loaded into this model: {error}") from None
        pipeline.set_adapters(["lora"], [scale])
        self.words.forget()

    # -- training

    def prepare_training(self, config: TrainConfig) -> list[str]:
        if config.tokenizer_max_length is not None:
            self.words.max_length = checked_length(config.tokenizer_max_length, self.words.max_length)
        self._trained = {self.family.denoiser: self.denoiser}
        if config.train_text_encoder:
            self._trained[self._encoder_name] = self.text_encoder.to(self.device)
            self.words.trains = True
        for network in (self.denoiser, self.text_encoder):
            frozen = config.use_lora or network not in self._trained.values()
            if frozen and self.dtype is not torch.float32:
                network.to(self.dtype)
        if config.with_prior_preservation and config.prior_generation_precision is not None:
            self._class_dtype = self._check_class_precision(config.prior_generation_precision)
        if config.channels_last:  # before the optimizer, whose state takes on the weights' layout
            self.denoiser.to(memory_format=torch.channels_last)
        if config.use_lora:
            self._add_lora(config)
        else:
            for network in self._trained.values():
                network.requires_grad_(True)
        self._set_modes(config)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self._optimizer = Optimizer(self._parameters(), config, scaler)
        if config.use_ema:
            self._average = MovingAverage(self._optimizer.named, config.ema_decay)
        return list(self._trained)

    def _check_class_precision(self, name: str) -> torch.dtype:
        dtype = check_precision(name, self.device, "prior_generation_precision")
        held = self.denoiser.dtype
        if dtype is torch.float32 and held is not torch.float32:
            raise ConfigError(
                f"prior_generation_precision: {name}, while LoRA with mixed_precision holds the frozen weights in "
                f"{held}; leave it out, or make the class images first, in a run without mixed_precision"
            )
        return dtype

    def _add_lora(self, config: TrainConfig) -> None:
        alpha = config.lora_alpha if config.lora_alpha is not None else float(config.rank)
        self._lora_scale = alpha / config.rank
        self._has_dropout = config.lora_dropout > 0
        for name, network in self._trained.items():
            layers = self.family.text_lora_layers
            if name == self.family.denoiser:
                layers = tuple(config.lora_layers or self.family.lora_layers)
            lora.add_lora(network, name, layers, config.rank, alpha, config.lora_dropout, config.seed)

    def _set_modes(self, config: TrainConfig) -> None:
        """Train mode only where it matters: recomputation and LoRA's dropout ask for it, nothing else has dropout."""
        for network in self._trained.values():
            if config.gradient_checkpointing:
                diffusers_name, transformers_name = "enable_gradient_checkpointing", "activation_checkpointing_enable"
                getattr(network, diffusers_name if hasattr(network, diffusers_name) else transformers_name)()
            if config.gradient_checkpointing or self._has_dropout:
                network.train()
            if config.compile:
                network.compile()
                self._compiled = True

    def _parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """What trains, by component, under published names."""
        if self._lora_scale is not None:
            return {name: lora.factors({name: network}) for name, network in self._trained.items()}
        return {
            name: {f"{name}.{models.weight_prefix(n)}{p}": w for p, w in n.named_parameters()}
            for name, n in self._trained.items()
        }

    def park(self) -> None:
        self.vae.to("cpu")
        if not self.words.trains:
            self.text_encoder.to("cpu")

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        errors = []
        for batch in micro_batches:
            if self._has_dropout:
                torch.manual_seed(batch.seed)
            error = self._errors(batch)
            loss = (error * self._to_device(batch.weight)).sum()
            self._optimizer.scaler.scale(loss).backward()
            errors.append(error.detach())
        if self.world.size > 1:
            sum_gradients(self._optimizer.all)
        norm = self._optimizer.step(lr)
        if self._average:
            self._average.update()
        self._results.append((torch.cat(errors), norm))

    def _errors(self, batch: Batch) -> torch.Tensor:
        """Mean squared error of each row [B], in float32."""
        with autocast(self.device, self.dtype):
            answer = self.denoiser(
                self._to_device(batch.x), self._to_device(batch.t), self.words.condition(batch.prompt, self._to_device)
            ).sample
        squared = (answer.float() - self._to_device(batch.target)).square()
        if batch.mask is not None:
            squared = squared * self._to_device(batch.mask)
        return squared.flatten(1).mean(1)

    def loss(self, batch: Batch) -> NDArray[np.float32]:
        with self._at_rest(), torch.no_grad():
            return self._errors(batch).cpu().numpy()

    def metrics(self) -> list[StepResult]:
        if not self._results:
            return []
        assert self._optimizer is not None
        flat = torch.cat([torch.cat([e, n.reshape(1)]) for e, n in self._results]).cpu().numpy()
        rows = np.split(flat, np.cumsum([len(e) + 1 for e, _ in self._results])[:-1])
        self._results.clear()
        scales = self._optimizer.scaler.is_enabled()
        return [StepResult(r[:-1], float(r[-1]), skipped=scales and not np.isfinite(r[-1])) for r in rows]

    # -- files

    def export(self, folder: Path, *, averaged: bool) -> None:
        with self._average.in_place() if self._average and averaged else nullcontext():
            if self._lora_scale is not None:
                lora.save_published(self._trained, self._lora_scale, folder)
                return
            for name, network in self._trained.items():
                models.save_component(network, self.model.path / name, folder / name)

    def save_state(self, folder: Path) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        self._optimizer.save(folder)
        if self._lora_scale is not None:
            lora.save_factors(self._trained, folder)
        if self._average:
            self._average.save(folder)

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        if self._lora_scale is not None:
            lora.restore_factors(self._trained, folder)
        else:
            for name, network in self._trained.items():
                models.restore_component(network, folder / name)
        if not reset_optimizer:
            self._optimizer.load(folder)
        if self._average:
            self._average.load(folder)

    def rewrite_weights(self, files: Sequence[Path], folder: Path) -> None:
        models.rewrite_weights(files, folder)

    def device_name(self) -> str:
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} ({self.device})"
        return f"{self.device} ({torch.get_num_threads()} threads)"

    # -- small things

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """The model as it is judged and used: without dropout, under its moving average where the run keeps one; and
        not compiled, for pictures have other shapes than training's batches."""
        training = [network for network in self._trained.values() if network.training]
        for network in training:
            network.eval()
        averaged = self._average.in_place() if self._average else nullcontext()
        with averaged, torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
            yield
        for network in training:
            network.train()

    def _to_device(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)
