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

from dreamcore.backends.base import BaseBackend
from dreamcore.backends.pipelines import make_pipeline
from dreamcore.backends.protocol import Batch, Float, SampleRequest
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings, Precision
from dreamcore.models.folder import ModelFolder
from dreamcore.text.conditioning import LoadedEncoder

from . import lora, models, sampling
from .ema import EMA
from .launch import choose_device, join_world, sum_gradients
from .memory import out_of_memory
from .models import Named
from .optim import Optimizer
from .precision import DTYPES, autocast, check_class_precision, check_precision, set_tf32
from .sampling import Conditioning

__all__ = ["TorchBackend", "load", "out_of_memory"]

for logging in (diffusers.utils.logging, transformers.utils.logging):
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # their warnings are of torchvision and of keys, which are all checked here


def load(model: ModelFolder, settings: ModelSettings) -> TorchBackend:
    """The entry point `dreambooth.backends`."""
    return TorchBackend(model, settings)


class TorchBackend(BaseBackend[torch.Tensor]):
    """`dreamcore.backends.protocol.Backend` on PyTorch."""

    optimizer: Optimizer
    load_tokenizer = staticmethod(models.load_tokenizer)
    fill = staticmethod(models.fill)
    add_lora = staticmethod(lora.add_lora)
    recompute = staticmethod(models.recompute)
    rewrite_weights = staticmethod(models.rewrite_weights)
    set_seed = staticmethod(torch.manual_seed)

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.device = choose_device(settings.device)
        self.world = join_world(self.device)
        self.dtype = self._class_dtype = check_precision(settings.mixed_precision, self.device)
        self._compiled = False
        set_tf32(settings.allow_tf32, self.device)
        self.on_device = self.device.type != "cpu"
        super().__init__(model, settings)

    # Arrays and tensors

    def to_device(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def to_host(self, tensor: torch.Tensor) -> Float:
        return tensor.detach().float().cpu().numpy()

    def concat(self, tensors: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        return torch.cat(list(tensors), axis)

    def rows(self, tensor: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        return tensor[self.to_device(rows)]

    # Networks

    def load_component(self, model: ModelFolder, name: str, dtype: torch.dtype) -> models.Component:
        return models.load_component(model, name, self.device, dtype)

    def type_of(self, precision: Precision) -> torch.dtype:
        return DTYPES[precision]

    def weights(self, component: str) -> Named:
        return models.weights_of(self.networks[component])

    def move(self, network: Any, *, away: bool = False) -> None:
        network.to("cpu" if away else self.device)

    def set_mode(self, network: Any, *, train: bool) -> None:
        network.train(train)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Not compiled either, for images have other shapes than training's batches."""
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
            yield

    def encode_pixels(self, pixels: Float) -> tuple[Float, Float]:
        posterior = self.vae.encode(self.to_device(pixels)).latent_dist
        return self.to_host(posterior.mean), self.to_host(posterior.std)

    def decode_latents(self, latents: Float) -> Float:
        return self.to_host(self.vae.decode(self.to_device(latents)).sample)

    @torch.no_grad()
    def encode_prompt(self, part: LoadedEncoder[torch.Tensor], prompt: str, precision: torch.dtype) -> Conditioning:
        if precision is torch.float16 and not part.description.fits_fp16:
            precision = torch.float32
        self.residence.come(part.description.network)
        with autocast(self.device, precision):
            return self.encode_tokens(part, *map(self.to_device, part.tokens(prompt))).each(lambda t: t.float())

    def precision(self, request: SampleRequest) -> torch.dtype:
        return self._class_dtype if request.for_training else self.dtype

    def make_latents(self, request: SampleRequest, positive: Conditioning, negative: Conditioning) -> Float:
        with autocast(self.device, self.precision(request)):
            return sampling.make_latents(self.model, self.denoiser, request, positive, negative)

    def apply_lora(self, file: Path, scale: float) -> None:
        lora.apply_file(make_pipeline(diffusers, self.model, self.networks), self.networks, file, scale)

    # Training

    def place(self, config: TrainConfig) -> None:
        if config.with_prior_preservation and config.prior_generation_precision is not None:
            self._class_dtype = check_class_precision(config.prior_generation_precision, self.denoiser)
        if config.channels_last:  # before the optimizer, whose state takes on the weights' layout
            part = self.residence.components[self.family.denoiser]
            assert isinstance(part, models.Component)
            part.memory_format = torch.channels_last

    @staticmethod
    def require_gradients(weights: Named) -> None:
        for weight in weights.values():
            weight.requires_grad_(True)

    def make_optimizer(self, parameters: Mapping[str, Named], config: TrainConfig) -> Optimizer:
        if config.compile:
            for network in self._trained.values():
                network.compile()
            self._compiled = True
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        return Optimizer(parameters, config, scaler)

    def make_ema(self, decay: float) -> EMA:
        return EMA(self.optimizer.named, decay)

    def errors(self, batch: Batch) -> torch.Tensor:
        with autocast(self.device, self.dtype):
            answer = self.denoiser(**self.inputs(batch)).sample
        return self.squared_error(answer.float(), batch)

    def update(self, lr: Mapping[str, float]) -> torch.Tensor:
        if self.world.size > 1:
            sum_gradients(self.optimizer.all)
        return self.optimizer.step(lr)

    # Facts

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
