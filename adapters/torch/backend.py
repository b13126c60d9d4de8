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

from dreamcore.backend import Batch, SampleRequest, StepResult, cut_results
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings
from dreamcore.lora import Lora, save_factors, save_published
from dreamcore.modelfolder import ModelFolder
from dreamcore.pipelines import make_pipeline, scaled, to_pixels
from dreamcore.weights import save_component

from . import lora, models
from .average import MovingAverage
from .launch import choose_device, join_world, sum_gradients
from .memory import out_of_memory as out_of_memory
from .optim import Named, Optimizer
from .precision import autocast, check_class_precision, check_precision, quicken_products, set_tf32
from .sampling import make_latents
from .words import Part, Words

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
        self.denoiser = models.load_component(model, self.family.denoiser)
        quicken_products(self.denoiser, self.device, self.dtype)
        self.vae = models.load_component(model, self.family.vae)
        parts = [
            Part(e, models.load_tokenizer(model, e.tokenizer), models.load_component(model, e.network))
            for e in model.text_encoders
        ]
        self.words = Words(model, parts, self.device, self.dtype, self._to_device)
        self._trained: dict[str, torch.nn.Module] = {}
        self._lora: Lora | None = None
        self._factors: dict[str, Named] = {}
        self._has_dropout = False
        self._optimizer: Optimizer | None = None
        self._average: MovingAverage | None = None
        self._compiled = False
        self._results: list[tuple[torch.Tensor, torch.Tensor]] = []

    # -- words

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        return [list(self.words.parts[encoder].tokenizer.tokenize(prompt)) for prompt in prompts]

    def tokenizer_window(self, encoder: int = 0) -> int:
        part = self.words.parts[encoder]
        return part.max_length - int(part.tokenizer.num_special_tokens_to_add())

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.words.summary(p).cpu().numpy() for p in prompts])

    def set_prompts(self, prompts: Sequence[str]) -> None:
        with self._room():
            self.words.set_prompts(prompts)

    # -- pictures to latents and back

    @torch.no_grad()
    def encode_images(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        posterior = self.vae.to(self.device).encode(self._to_device(pixels)).latent_dist
        return scaled(posterior.mean.cpu().numpy(), posterior.std.cpu().numpy(), self.model)

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        dtype = self._class_dtype if request.for_training else self.dtype
        with self._at_rest():
            positive = self.words.embeddings(request.prompts, dtype)
            negative = self.words.embeddings([request.negative_prompt] * len(request.prompts), dtype)
            self.denoiser.to(self.device)
            with autocast(self.device, dtype):
                latents = make_latents(self.model, self.denoiser, request, positive, negative)
        with torch.no_grad():
            return to_pixels(self.vae.to(self.device).decode(self._to_device(latents)).sample.cpu().numpy(), self.model)

    def load_lora(self, file: Path, scale: float) -> None:
        networks = {self.family.denoiser: self.denoiser} | self.words.networks()
        lora.apply_file(make_pipeline(diffusers, self.model, networks), networks, file, scale)
        self.words.forget()

    @contextmanager
    def _room(self) -> Iterator[None]:
        """The denoiser off the device for a while: it and a text encoder such as T5 need not fit there together."""
        if self.device.type == "cpu" or self.words.trains:
            yield
            return
        home = self.denoiser.device
        self.denoiser.to("cpu")
        try:
            yield
        finally:
            self.park()
            torch.cuda.empty_cache()
            self.denoiser.to(home)

    # -- training

    def prepare_training(self, config: TrainConfig) -> list[str]:
        self._trained = {self.family.denoiser: self.denoiser} | self.words.prepare(config)
        halved = {self.family.denoiser: self.denoiser} | self.words.networks(fp16=self.dtype is torch.float16)
        for name, network in halved.items():
            if (config.use_lora or name not in self._trained) and self.dtype is not torch.float32:
                network.to(self.dtype)
        for network in self._trained.values():  # after they are halved: only then does a large one fit
            network.to(self.device)
        if config.with_prior_preservation and config.prior_generation_precision is not None:
            self._class_dtype = check_class_precision(config.prior_generation_precision, self.denoiser)
        if config.channels_last:  # before the optimizer, whose state takes on the weights' layout
            self.denoiser.to(memory_format=torch.channels_last)
        if config.use_lora:
            self._lora = Lora.of(config, self.model)
            self._has_dropout = self._lora.dropout > 0
            self._factors = {name: lora.add_lora(n, name, self._lora) for name, n in self._trained.items()}
        else:
            for parameter in (p for named in self._parameters().values() for p in named.values()):
                parameter.requires_grad_(True)
        self._set_modes(config)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self._optimizer = Optimizer(self._parameters(), config, scaler)
        if config.use_ema:
            self._average = MovingAverage(self._optimizer.named, config.ema_decay)
        return list(self._trained)

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

    def _parameters(self) -> dict[str, Named]:
        """What trains, by component, under published names."""
        if self._lora:
            return self._factors
        found: dict[str, Named] = {}
        for name, network in self._trained.items():
            published = {models.weight_prefix(network) + p: w for p, w in network.named_parameters()}
            unused = self.model.unused(name)
            found[name] = {f"{name}.{p}": w for p, w in published.items() if not p.startswith(unused)}
        return found

    def park(self) -> None:
        self.vae.to("cpu")
        for part in self.words.parts:
            if not part.trains:
                part.network.to("cpu")

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
            values = {"x": batch.x, "t": batch.t, **batch.extra}
            told = self.words.condition(batch.prompt).values()
            given = {name: self._to_device(array) for name, array in values.items()} | told
            answer = self.denoiser(**self.family.arguments(given)).sample
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
        rows = [len(e) for e, _ in self._results]
        self._results.clear()
        return cut_results(flat, rows, scales=self._optimizer.scaler.is_enabled())

    # -- files

    def export(self, folder: Path, *, averaged: bool) -> None:
        with self._average.in_place() if self._average and averaged else nullcontext():
            if self._lora:
                save_published(lora.arrays(self._all_factors()), self._lora.scale, folder)
                return
            for name, network in self._trained.items():
                save_component(folder / name, self.model.folder(name), models.exported(network))

    def save_state(self, folder: Path) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        self._optimizer.save(folder)
        if self._lora:
            save_factors(lora.arrays(self._all_factors()), folder)
        if self._average:
            self._average.save(folder)

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        if self._lora:
            lora.restore_factors(self._all_factors(), folder)
        else:
            for name, network in self._trained.items():
                models.restore_component(network, folder / name)
        if not reset_optimizer:
            self._optimizer.load(folder)
        if self._average:
            self._average.load(folder)

    def _all_factors(self) -> Named:
        return {name: factor for factors in self._factors.values() for name, factor in factors.items()}

    def rewrite_weights(self, files: Sequence[Path], folder: Path) -> None:
        models.rewrite_weights(files, folder)

    def peak_memory(self) -> int | None:
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak

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
        try:
            with averaged, torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
                yield
        finally:
            for network in training:
                network.train()

    def _to_device(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)
