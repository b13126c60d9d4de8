"""The Paddle backend: ppdiffusers' networks under core's plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore.backends.base import BaseBackend
from dreamcore.backends.loss_scale import LossScale
from dreamcore.backends.protocol import Batch, Float, SampleRequest
from dreamcore.backends.sharding import Sharded
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings, Precision
from dreamcore.models.folder import ModelFolder
from dreamcore.placement.shards import share_out
from dreamcore.text import conditions
from dreamcore.text.encoder import LoadedEncoder, Tokens

from . import lora, models
from .ema import EMA
from .launch import PaddleWorld, check_log_folder, choose_device, join_world, sum_gradients
from .memory import out_of_memory
from .models import Named, shapes
from .optim import Optimizer
from .precision import DTYPES, autocast, check_precision
from .sharding import Wires

__all__ = ["PaddleBackend", "load", "out_of_memory"]

Conditioning = conditions.Conditioning[paddle.Tensor]


def load(model: ModelFolder, settings: ModelSettings) -> PaddleBackend:
    """The entry point `dreambooth.backends`."""
    return PaddleBackend(model, settings)


class PaddleBackend(BaseBackend[paddle.Tensor]):
    """`dreamcore.backends.protocol.Backend` on Paddle."""

    optimizer: Optimizer | Sharded[paddle.Tensor]
    load_tokenizer = staticmethod(models.load_tokenizer)
    shapes = staticmethod(models.shapes)
    arrays = staticmethod(models.arrays)
    fill = staticmethod(models.fill)
    add_lora = staticmethod(lora.add_lora)
    switch_lora = staticmethod(lora.switch)
    recompute = staticmethod(models.recompute)
    set_seed = staticmethod(paddle.seed)
    inference = staticmethod(paddle.no_grad)

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.device = choose_device(settings.device)
        self.world = join_world(self.device)
        self.dtype = check_precision(settings.mixed_precision, self.device)
        self._amp_level = (settings.amp_level or "O1") if self.dtype != "float32" else "O0"
        self.on_device = self.device != "cpu"
        super().__init__(model, settings)

    # Arrays and tensors

    def to_device(self, array: NDArray[Any]) -> paddle.Tensor:
        return paddle.to_tensor(array)

    def to_host(self, tensor: paddle.Tensor) -> Float:
        return tensor.detach().cast("float32").numpy()

    def concat(self, tensors: Sequence[paddle.Tensor], axis: int) -> paddle.Tensor:
        return paddle.concat(list(tensors), axis)

    def rows(self, tensor: paddle.Tensor, rows: NDArray[np.int64]) -> paddle.Tensor:
        return tensor.index_select(self.to_device(rows))

    # Networks

    def load_component(self, model: ModelFolder, name: str, dtype: str) -> models.Component:
        return models.load_component(model, name, dtype)

    def type_of(self, precision: Precision) -> str:
        """At level O1 float32: Paddle casts weights where they are used."""
        return DTYPES[precision] if self._amp_level == "O2" else "float32"

    def weights(self, component: str) -> Named:
        return models.weights_of(self.networks[component])

    def move(self, network: Any, *, away: bool = False) -> None:
        if self.device != "cpu":
            network.to(device="cpu" if away else self.device)

    def set_mode(self, network: Any, *, train: bool) -> None:
        network.train() if train else network.eval()

    def encode_pixels(self, pixels: Float) -> tuple[Float, Float]:
        answer = self.vae.encode(self.to_device(self.as_film(pixels)))
        return self.answered(getattr(answer, "latent_dist", answer))

    def decode_latents(self, latents: Float) -> Float:
        return self.as_picture(self.to_host(self.vae.decode(self.to_device(self.as_film(latents))).sample))

    @paddle.no_grad()
    def encode_prompt(self, part: LoadedEncoder[paddle.Tensor], tokens: Tokens, precision: Any) -> Conditioning:
        self.residence.come(part.description.network)
        with self._autocast(part.description.fits_fp16):
            return self.encode_tokens(part, *map(self.to_device, tokens)).each(lambda t: t.cast("float32"))

    def make_latents(self, request: SampleRequest, positive: Conditioning, negative: Conditioning) -> Float:
        from .sampling import make_latents  # ppdiffusers comes after the device is chosen

        with self._autocast():
            return make_latents(self.model, self.networks | self.autoencoder, request, positive, negative)

    def apply_lora(self, file: Path, scale: float) -> None:
        lora.apply_file(self.networks, file, scale)

    # Training

    def prepare_training(self, config: TrainConfig) -> list[str]:
        check_log_folder(config.output_dir)
        return super().prepare_training(config)

    def place(self, config: TrainConfig) -> None:
        """Nothing: weights come to the device in their type."""

    def add_rows(self, part: LoadedEncoder[paddle.Tensor], first: int, rows: Float) -> paddle.Tensor:
        weights = self.weights(part.description.network)
        return models.add_rows(part.network, weights[part.description.kind.table], first, rows)

    def put(self, tensor: paddle.Tensor, value: paddle.Tensor) -> None:
        tensor.set_value(value)

    @staticmethod
    def require_gradients(weights: Named) -> None:
        for weight in weights.values():
            weight.stop_gradient = False

    def make_optimizer(
        self, parameters: Mapping[str, Named], config: TrainConfig
    ) -> Optimizer | Sharded[paddle.Tensor]:
        scale = LossScale() if self.dtype == "float16" else None
        if config.shard != "optimizer" or not isinstance(self.world, PaddleWorld):
            return Optimizer(parameters, config, scale)
        known = shapes({name: p for named in parameters.values() for name, p in named.items()})
        owners = share_out({name: prod(shape) for name, shape in known.items()}, self.world.size)
        make = partial(Optimizer, config=config, loss_scale=scale)
        return Sharded(parameters, known, owners, make, self.world, Wires())

    def make_ema(self, decay: float) -> EMA:
        return EMA(self.optimizer.named, decay)

    def answer(self, batch: Batch) -> paddle.Tensor:
        with self._autocast():
            answer = self.denoiser(**self.inputs(batch)).sample
        return answer.cast("float32")

    def update(self, lr: Mapping[str, float]) -> paddle.Tensor:
        if self.world.size > 1 and isinstance(self.optimizer, Optimizer):
            sum_gradients(self.optimizer.all)
        return self.optimizer.step(lr)

    # Facts

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

    def _autocast(self, fits_fp16: bool = True) -> Any:
        return autocast(self.dtype, self._amp_level, enable=fits_fp16 or self.dtype != "float16")
