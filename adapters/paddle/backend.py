"""The Paddle backend: ppdiffusers' networks under core's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore.backend import Batch, SampleRequest, StepResult, cut_results
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings
from dreamcore.errors import ConfigError
from dreamcore.layouts import PUBLISHED
from dreamcore.lora import Lora, save_factors, save_published
from dreamcore.lossscale import LossScale
from dreamcore.modelfolder import ModelFolder
from dreamcore.pipelines import scaled, to_pixels
from dreamcore.weights import save_component

from . import lora, models
from .launch import check_log_folder, choose_device, join_world, sum_gradients
from .memory import out_of_memory as out_of_memory
from .optim import MovingAverage, Optimizer
from .words import Part, Words

DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}


def load(model: ModelFolder, settings: ModelSettings) -> PaddleBackend:
    """The entry point `dreambooth.backends`."""
    return PaddleBackend(model, settings)


class PaddleBackend:
    """`dreamcore.backend.Backend` on Paddle."""

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.model, self.family = model, model.family
        self.device = choose_device(settings.device)
        self.world = join_world(self.device)
        self.dtype = _check_precision(settings.mixed_precision, self.device)
        self._amp_level = (settings.amp_level or "O1") if self.dtype != "float32" else "O0"
        self.denoiser = models.load_component(model, self.family.denoiser)
        self.vae = models.load_component(model, self.family.vae)
        parts = [
            Part(e, models.load_tokenizer(model, e.tokenizer), models.load_component(model, e.network))
            for e in model.text_encoders
        ]
        self.words = Words(model, parts, self._autocast, lambda network: self._move(network, self.device))
        self._trained: dict[str, paddle.nn.Layer] = {}
        self._lora: Lora | None = None
        self._factors: dict[str, dict[str, paddle.Tensor]] = {}
        self._has_dropout = False
        self._optimizer: Optimizer | None = None
        self._average: MovingAverage | None = None
        self._results: list[tuple[paddle.Tensor, paddle.Tensor]] = []

    # -- words

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        return [list(self.words.parts[encoder].tokenizer.tokenize(prompt)) for prompt in prompts]

    def tokenizer_window(self, encoder: int = 0) -> int:
        part = self.words.parts[encoder]
        return part.max_length - int(part.tokenizer.num_special_tokens_to_add(pair=False))

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.words.summary(p) for p in prompts])

    def set_prompts(self, prompts: Sequence[str]) -> None:
        self.words.set_prompts(prompts)

    # -- pictures to latents and back

    @paddle.no_grad()
    def encode_images(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self._move(self.vae, self.device)
        posterior = self.vae.encode(paddle.to_tensor(pixels)).latent_dist
        return scaled(posterior.mean.numpy(), posterior.std.numpy(), self.model)

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        from .sampling import make_latents  # ppdiffusers comes after the device is chosen

        parts = {self.family.denoiser: self.denoiser, self.family.vae: self.vae} | self.words.networks()
        self._move(self.denoiser, self.device)
        with self._at_rest():
            positive = self.words.embeddings(request.prompts)
            negative = self.words.embeddings([request.negative_prompt] * len(request.prompts))
            with self._autocast():
                latents = make_latents(self.model, parts, request, positive, negative)
        self._move(self.vae, self.device)
        with paddle.no_grad():
            return to_pixels(self.vae.decode(paddle.to_tensor(latents)).sample.numpy(), self.model)

    def load_lora(self, file: Path, scale: float) -> None:
        lora.apply_file({self.family.denoiser: self.denoiser} | self.words.networks(), file, scale)
        self.words.forget()

    # -- training

    def prepare_training(self, config: TrainConfig) -> list[str]:
        check_log_folder(config.output_dir)
        self._trained = {self.family.denoiser: self.denoiser} | self.words.prepare(config)
        for network in self._trained.values():
            self._move(network, self.device)
        halved = {self.family.denoiser: self.denoiser} | self.words.networks(fp16=self.dtype == "float16")
        for name, network in halved.items():
            if (config.use_lora or name not in self._trained) and self._amp_level == "O2":
                paddle.amp.decorate(network, level="O2", dtype=self.dtype)
        if config.use_lora:
            self._lora = Lora.of(config, self.model)
            self._has_dropout = self._lora.dropout > 0
            self._factors = {name: lora.add_lora(n, name, self._lora) for name, n in self._trained.items()}
        else:
            for parameter in (p for named in self._parameters().values() for p in named.values()):
                parameter.stop_gradient = False
        self._set_modes(config)
        self._optimizer = Optimizer(self._parameters(), config, LossScale() if self.dtype == "float16" else None)
        if config.use_ema:
            self._average = MovingAverage(self._optimizer.named, config.ema_decay)
        return list(self._trained)

    def _set_modes(self, config: TrainConfig) -> None:
        """Train mode only where it matters: LoRA's dropout asks for it, nothing else has dropout."""
        for network in self._trained.values():
            if config.gradient_checkpointing:
                models.recompute(network)
            if config.gradient_checkpointing or self._has_dropout:
                network.train()

    def _parameters(self) -> dict[str, dict[str, paddle.Tensor]]:
        """What trains, by component, under published names."""
        if self._lora:
            return self._factors
        return {
            name: {
                f"{name}.{p}": w for p, w in models.trainable(n).items() if not p.startswith(self.model.unused(name))
            }
            for name, n in self._trained.items()
        }

    def park(self) -> None:
        self._move(self.vae, "cpu")
        for part in self.words.parts:
            if not part.trains:
                self._move(part.network, "cpu")

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        assert self._optimizer is not None, "prepare_training comes first"
        errors = []
        for batch in micro_batches:
            if self._has_dropout:
                paddle.seed(batch.seed)
            error = self._errors(batch)
            loss = (error * paddle.to_tensor(batch.weight)).sum()
            scale = self._optimizer.loss_scale
            (loss * scale.scale if scale else loss).backward()
            errors.append(error.detach())
        if self.world.size > 1:
            sum_gradients(self._optimizer.all)
        norm = self._optimizer.step(lr)
        if self._average:
            self._average.update()
        self._results.append((paddle.concat(errors), norm))

    def _errors(self, batch: Batch) -> paddle.Tensor:
        """Mean squared error of each row [B], in float32."""
        with self._autocast():
            values = {"x": batch.x, "t": batch.t, **batch.extra}
            given = {name: paddle.to_tensor(array) for name, array in values.items()}
            told = self.words.condition(batch.prompt).values()
            answer = self.denoiser(**self.family.arguments(given | told)).sample
        squared = (answer.cast("float32") - paddle.to_tensor(batch.target)).square()
        if batch.mask is not None:
            squared = squared * paddle.to_tensor(batch.mask)
        return squared.flatten(1).mean(1)

    def loss(self, batch: Batch) -> NDArray[np.float32]:
        with self._at_rest(), paddle.no_grad():
            return self._errors(batch).numpy()

    def metrics(self) -> list[StepResult]:
        if not self._results:
            return []
        assert self._optimizer is not None
        flat = paddle.concat([paddle.concat([e, n.reshape([1])]) for e, n in self._results]).numpy()
        rows = [len(e) for e, _ in self._results]
        self._results.clear()
        return cut_results(flat, rows, scales=self._optimizer.loss_scale is not None)

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

    def _all_factors(self) -> dict[str, paddle.Tensor]:
        return {name: factor for factors in self._factors.values() for name, factor in factors.items()}

    def rewrite_weights(self, files: Sequence[Path], folder: Path) -> None:
        models.rewrite_weights(files, folder, paddles=self.model.index[folder.name][0] in PUBLISHED)

    def peak_memory(self) -> int | None:
        if self.device == "cpu":
            return None
        peak = int(paddle.device.cuda.max_memory_allocated(self.device))
        paddle.device.cuda.reset_max_memory_allocated(self.device)
        return peak

    def device_name(self) -> str:
        if self.device == "cpu":
            return "cpu"
        return f"{paddle.device.cuda.get_device_name(self.device)} ({self.device})"

    # -- small things

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """The model as it is judged and used: without dropout, under its moving average where the run keeps one."""
        training = [network for network in self._trained.values() if network.training]
        for network in training:
            network.eval()
        try:
            with self._average.in_place() if self._average else nullcontext():
                yield
        finally:
            for network in training:
                network.train()

    def _autocast(self, fits_fp16: bool = True) -> Any:
        halves = self.dtype == "bfloat16" or (self.dtype == "float16" and fits_fp16)
        return paddle.amp.auto_cast(enable=halves, dtype=_half(self.dtype), level=self._amp_level)

    def _move(self, network: paddle.nn.Layer, device: str) -> None:
        if self.device != "cpu":
            network.to(device=device)


def _half(dtype: str) -> str:
    return "bfloat16" if dtype == "float32" else dtype  # a name is asked for even where nothing is cast


def _check_precision(name: str, device: str) -> str:
    """The arithmetic's type.

    Raises:
        ConfigError: the device lacks it.
    """
    if name != "no" and device == "cpu":
        raise ConfigError(f"mixed_precision: {name} needs a GPU: Paddle has no mixed precision on a CPU; use no")
    if name == "bf16" and not paddle.amp.is_bfloat16_supported():
        raise ConfigError(f"mixed_precision: {paddle.device.cuda.get_device_name(device)} lacks bf16; use fp16 or no")
    return DTYPES[name]
